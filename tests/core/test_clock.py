"""The virtual clock: sleepers wake at their own time, in order, and nobody waits."""

from __future__ import annotations

import asyncio

import pytest

from shoal.core.clock import SystemClock, VirtualClock


def test_sleepers_wake_at_their_own_time_and_in_order() -> None:
    async def main() -> list[tuple[str, float]]:
        clock, woken = VirtualClock(), []

        async def sleeper(name: str, *delays: float) -> None:
            for delay in delays:
                await clock.sleep(delay)
                woken.append((name, clock.monotonic()))

        tasks = [asyncio.create_task(sleeper("a", 2, 2)), asyncio.create_task(sleeper("b", 1, 1, 1, 1))]
        await asyncio.sleep(0)
        await clock.advance(3.5)
        assert clock.monotonic() == 3.5
        await clock.advance(1)
        await asyncio.gather(*tasks)
        return woken

    assert asyncio.run(main()) == [("b", 1), ("a", 2), ("b", 2), ("b", 3), ("a", 4), ("b", 4)]


def test_a_cancelled_sleeper_is_gone() -> None:
    async def main() -> None:
        clock = VirtualClock()
        task = asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0)
        task.cancel()
        await clock.advance(2)
        assert task.cancelled()

    asyncio.run(main())


def test_wall_time_moves_with_monotonic_time_and_never_back() -> None:
    async def main() -> None:
        clock = VirtualClock(monotonic=10, wall=1000)
        await clock.advance(5)
        assert (clock.monotonic(), clock.wall()) == (15, 1005)
        with pytest.raises(ValueError, match="go back"):
            await clock.advance(-1)

    asyncio.run(main())


def test_the_system_clock_tells_the_time() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.wall() > 1_700_000_000
    asyncio.run(clock.sleep(0))
