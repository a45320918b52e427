import asyncio

import pytest

from shoal.core.errors import LinkClosed
from shoal.mesh.quic.inbox import Inbox


def test_items_leave_in_order_and_no_more_than_the_limit_wait() -> None:
    async def run() -> list[int]:
        inbox: Inbox[int] = Inbox(2)
        assert [inbox.put(1), inbox.put(2), inbox.put(3)] == [True, True, False]
        return [await inbox.take(), await inbox.take()]

    assert asyncio.run(run()) == [1, 2]


def test_everybody_who_waits_hears_the_end() -> None:
    async def run() -> None:
        inbox: Inbox[int] = Inbox(2)
        waiting = [asyncio.create_task(inbox.take()) for _ in range(3)]
        await asyncio.sleep(0)
        assert inbox.end(LinkClosed("over")) == []
        for task in waiting:
            with pytest.raises(LinkClosed, match="over"):
                await task
        assert not inbox.put(1)

    asyncio.run(run())


def test_a_cancelled_taker_loses_no_item() -> None:
    async def run() -> int:
        inbox: Inbox[int] = Inbox(2)
        first, second = asyncio.create_task(inbox.take()), asyncio.create_task(inbox.take())
        await asyncio.sleep(0)
        inbox.put(7)
        first.cancel()
        return await asyncio.wait_for(second, 5)

    assert asyncio.run(run()) == 7


def test_what_nobody_took_is_handed_back_at_the_end() -> None:
    inbox: Inbox[int] = Inbox(2)
    inbox.put(4)
    assert inbox.end(LinkClosed("over")) == [4]
