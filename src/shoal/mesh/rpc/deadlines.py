"""Time limits for many calls with one sleeping task. `TimeLimit` is `asyncio.timeout` over a `Clock`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable
from types import TracebackType

from shoal.core.clock import Clock
from shoal.core.errors import DeadlineExceeded

SLACK = 1024
"""Ended limits that may lie in the heap before it is swept: a sweep then costs each of them O(1)."""


class Deadline:
    """One limit; `act` is None once it no longer matters."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act


class Deadlines:
    """Calls `act` of each deadline when its time comes, unless it was dropped. Memory is O(deadlines that matter)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()
        self._dropped = 0
        self._wakes_at = math.inf
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Deadlines that matter."""
        return len(self._heap) - self._dropped

    def add(self, at: float, act: Callable[[], None]) -> Deadline:
        """`at` is monotonic seconds."""
        deadline = Deadline(act)
        heapq.heappush(self._heap, (at, next(self._order), deadline))
        if at < self._wakes_at:
            self._restart(at)
        return deadline

    def drop(self, deadline: Deadline) -> None:
        """Harmless when it has acted or was dropped."""
        if deadline.act is None:
            return
        deadline.act = None
        self._dropped += 1
        if self._dropped > SLACK and self._dropped > len(self._heap) // 2:
            self._heap = [item for item in self._heap if item[2].act is not None]
            heapq.heapify(self._heap)
            self._dropped = 0

    def close(self) -> None:
        self._heap.clear()
        self._dropped = 0
        self._stop()

    def _restart(self, at: float) -> None:
        self._stop()
        self._wakes_at = at
        self._task = asyncio.get_running_loop().create_task(self._run(), name="rpc deadlines")

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task, self._wakes_at = None, math.inf

    async def _run(self) -> None:
        while self._heap:
            self._wakes_at = self._heap[0][0]
            await self._clock.sleep(max(0.0, self._wakes_at - self._clock.monotonic()))
            self._wakes_at = -math.inf  # whoever adds a deadline now need not wake this task: it looks again
            self._act_until(self._clock.monotonic())
        self._task, self._wakes_at = None, math.inf

    def _act_until(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            deadline = heapq.heappop(self._heap)[2]
            act, deadline.act = deadline.act, None
            if act is None:
                self._dropped -= 1
            else:
                act()


class TimeLimit:
    """`with TimeLimit(...)`: the block ends by `at`, or raises DeadlineExceeded(`text`). `at` None: no limit."""

    __slots__ = ("_at", "_cancelling", "_deadline", "_deadlines", "_is_over", "_task", "_text")

    def __init__(self, deadlines: Deadlines, at: float | None, text: str) -> None:
        self._deadlines, self._at, self._text = deadlines, at, text
        self._deadline: Deadline | None = None
        self._is_over = False

    def __enter__(self) -> TimeLimit:
        if self._at is not None:
            task = asyncio.current_task()
            assert task is not None
            self._task = task
            self._cancelling = task.cancelling()
            self._deadline = self._deadlines.add(self._at, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._deadline is None:
            return
        self._deadlines.drop(self._deadline)
        if not self._is_over:
            return
        is_ours = self._task.uncancel() <= self._cancelling
        if is_ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise DeadlineExceeded(self._text) from error

    def _expire(self) -> None:
        self._is_over = True
        self._task.cancel()
