"""What was tried and how it went, for `shoal peers` and `shoal doctor --net`: bounded, newest last."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from shoal.core.clock import Clock

KEPT = 200


@dataclass(frozen=True, slots=True)
class Step:
    """`at` is wall time; `what` was tried; `outcome` in words; `is_good`: it did what it should."""

    at: float
    what: str
    outcome: str
    is_good: bool


class Journal:
    """The last KEPT steps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps: deque[Step] = deque(maxlen=KEPT)

    def note(self, what: str, outcome: str, is_good: bool = True) -> None:
        self._steps.append(Step(self._clock.wall(), what, outcome[:300], is_good))

    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)
