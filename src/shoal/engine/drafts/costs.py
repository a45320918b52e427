"""How long a step of n rows takes, measured while serving: what a draft costs and where batches get too full for it.

On a CPU a few more rows in a step cost little, since the weights are read once; from some number on every row costs the
same, in stairs: kernels work on four or eight rows at once. The curve is learned at ROWS and interpolated; before it is
measured, its shape is that of BEFORE.
"""

from __future__ import annotations

from bisect import bisect_right

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 24, 32, 48, 64, 128, 256, 512)
BEFORE = (
    1.0, 1.07, 1.17, 1.26, 1.6, 1.7, 1.9, 1.95, 2.4, 2.9, 3.4, 3.6, 4.8, 6.0, 8.5, 11.5, 22.0, 43.0, 85.0,
)  # fmt: skip
"""Assumed relative times at ROWS until measured: between what one thread and two took up to 48 rows behind 600 tokens
(SmolLM2 135M Q4_1, AVX-512 VNNI, 2026-11-23: 5.8 and 5.3 ms for one row); the rest continues it by eye."""

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
    low = bisect_right(ROWS, rows) - 1
    return low, (rows - ROWS[low]) / (ROWS[low + 1] - ROWS[low]) if low + 1 < len(ROWS) else 0.0


def _interpolate(values: tuple[float, ...], rows: int) -> float:
    low, part = _place(rows)
    return values[low] + (part * (values[low + 1] - values[low]) if part else 0.0)
