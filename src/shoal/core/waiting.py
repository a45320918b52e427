"""Waiting on a `Clock` with a bound, and how long silence may last before somebody counts as gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed

T = TypeVar("T")

LATE_S = 0.1
"""An alarm this late says that this process was held up itself: what has come meanwhile is not read yet."""
MAX_LATE = 4
"""Alarms in a row that may be late before the silence counts all the same."""


async def within(clock: Clock, limit_s: float, waiting: Awaitable[T]) -> T:
    """The result of `waiting`, or LinkClosed after `limit_s` of silence on `clock` during which this process ran."""
    task = asyncio.ensure_future(waiting)
    try:
        for _ in range(MAX_LATE):
            late_s = await _alarm(clock, limit_s, task)
            if task.done():
                return task.result()
            if late_s < LATE_S:
                break
        raise LinkClosed(f"the peer said nothing for {limit_s:.1f} s though something was due")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _alarm(clock: Clock, limit_s: float, task: asyncio.Future[T]) -> float:
    """Until the task is done or `limit_s` has passed; how much later than that it is."""
    began = clock.monotonic()
    alarm = asyncio.ensure_future(clock.sleep(limit_s))
    try:
        await asyncio.wait((task, alarm), return_when=asyncio.FIRST_COMPLETED)
        return clock.monotonic() - began - limit_s
    finally:
        alarm.cancel()
        await asyncio.gather(alarm, return_exceptions=True)


@dataclass(slots=True)
class Pulse:
    """Of one answerer that gives a sign of life each `beat_s`: `missed` of its longest pauses so far end it.

    A machine that is short of time stalls for seconds again and again, and is given as many; one that was never late is
    missed sooner.
    """

    beat_s: float
    missed: int
    most_s: float

    @property
    def limit_s(self) -> float:
        return min(self.most_s, self.missed * self.beat_s)

    def heard(self, pause_s: float) -> None:
        self.beat_s = max(self.beat_s, pause_s)
