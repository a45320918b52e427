"""Preparing what may wait never keeps what is urgent from its thread, and cancelling does not pile work up."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shoal.engine.helpers import Helpers


def test_a_crowd_that_may_wait_takes_one_thread() -> None:
    async def main() -> None:
        helpers, gate, begun = Helpers(), threading.Event(), []

        def slow() -> None:
            begun.append(1)
            gate.wait(20)

        crowd = [asyncio.create_task(helpers.run(500, slow)) for _ in range(20)]
        assert await asyncio.wait_for(helpers.run(0, lambda: "mine"), 10) == "mine"
        assert len(begun) <= 1
        gate.set()
        await asyncio.gather(*crowd)
        assert len(begun) == 20
        helpers.close()

    asyncio.run(main())


def test_a_cancelled_request_is_over_when_its_thread_is() -> None:
    async def main() -> None:
        helpers, gate, started = Helpers(), threading.Event(), threading.Event()

        def slow() -> None:
            started.set()
            gate.wait(20)

        one = asyncio.create_task(helpers.run(500, slow))
        await asyncio.to_thread(started.wait, 10)
        queued = asyncio.create_task(helpers.run(500, lambda: pytest.fail("cancelled before it began")))
        await asyncio.sleep(0)
        queued.cancel()
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        assert not one.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await one
        helpers.close()

    asyncio.run(main())


def test_errors_and_results_come_back() -> None:
    async def main() -> None:
        helpers = Helpers()
        assert await helpers.run(0, lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            await helpers.run(1, lambda: 1 // 0)
        helpers.close()

    asyncio.run(main())
