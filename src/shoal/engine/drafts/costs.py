"""How long a step of n rows takes, measured while serving: what a draft costs and where batches get too full for it.

On a CPU a few more rows in a step cost little, since the weights are read once; from some number on every row costs the
same. That curve is learned at powers of two and interpolated; before it is measured, its shape is that of BEFORE.
"""

from __future__ import annotations

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BEFORE = (1.0, 1.05, 1.35, 2.3, 3.6, 6.2, 11.5, 22.0, 43.0, 85.0)
"""Assumed relative times at ROWS until measured: only the eighth row is from a figure (SmolLM2 135M Q4_1 on two quiet
AVX2 cores: 3.6 ms for a batch of one, 8.7 ms for eight); the others continue the curve by eye."""

NEW = 0.1
"""Weight of a new measurement; one far off the estimate counts as twice or half of it, for machines stall."""

BACK = 0.002
"""How much of the difference to the expected shape is forgotten per step, so that a wrong estimate does not stay."""


class StepTimes:
    def __init__(self) -> None:
        self._factors = [1.0] * len(ROWS)
        self._scale_s = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """A step of `rows` rows, each with an output, took `seconds`."""
        if not 0 < rows <= ROWS[-1] or seconds <= 0:
            return
        if not self._scale_s:
            self._scale_s = seconds / _interpolate(BEFORE, rows)
        expected = self(rows)
        change = min(max(seconds / expected, 0.5), 2.0)
        self._scale_s *= change ** (NEW * 0.5)
        low, part = _place(rows)
        for index in range(len(ROWS)):
            self._factors[index] **= 1 - BACK
        for index, weight in ((low, 1 - part), (low + 1, part)):
            if weight:
                self._factors[index] *= change ** (NEW * weight * 0.5)

    def __call__(self, rows: int) -> float:
        """Seconds, or in units of a step of one row before anything is measured."""
        low, part = _place(min(rows, ROWS[-1]))
        value = BEFORE[low] * self._factors[low]
        if part:
            value += part * (BEFORE[low + 1] * self._factors[low + 1] - value)
        return value * (self._scale_s or 1.0) * max(1.0, rows / ROWS[-1])


def _place(rows: int) -> tuple[int, float]:
    """Index of the last of ROWS that is not above `rows`, and how far towards the next."""
    low = rows.bit_length() - 1
    return low, rows / ROWS[low] - 1


def _interpolate(values: tuple[float, ...], rows: int) -> float:
    low, part = _place(rows)
    return values[low] + (part * (values[low + 1] - values[low]) if part else 0.0)
