"""What happens at which time of a clock, in order of time, ties in order of arrival."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable

from shoal.core.clock import Clock


class Agenda:
    """Runs functions at times. One sleeping task however many entries; none while there are none."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._alarm = math.inf
        self._tasks: set[asyncio.Task[None]] = set()

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run `action` in `delay_s` seconds; at once, before returning, for 0."""
        if delay_s <= 0:
            action()
            return
        due = self.clock.monotonic() + delay_s
        heapq.heappush(self._entries, (due, next(self._order), action))
        self._arm(due)

    def _arm(self, due: float) -> None:
        if due < self._alarm:
            self._alarm = due
            task = asyncio.get_running_loop().create_task(self._wake(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _wake(self, due: float) -> None:
        await self.clock.sleep(due - self.clock.monotonic())
        while self._entries and self._entries[0][0] <= self.clock.monotonic() + 1e-12:
            heapq.heappop(self._entries)[2]()
        if self._alarm == due:
            self._alarm = math.inf
        if self._entries:
            self._arm(self._entries[0][0])
