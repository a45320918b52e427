"""What re-tuning gains after the machine changes: gain = T_hpo / T_stale - 1 (arXiv 2408.01050).

T_stale is the score on the new machine of the settings that were best on the old one; T_hpo of those that are best
on the new one. Both are measured again, alternately, since the best of many noisy trials looks better than it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shoal.plan.space import Settings

Score = Callable[[Settings], float]


@dataclass(frozen=True, slots=True)
class Contest:
    """Scores of two settings measured in turns; medians and the noise between repetitions."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Of the second over the first, as a share; 0 where the first has no positive score to divide by."""
        before, after = statistics.median(self.first), statistics.median(self.second)
        return after / before - 1 if before > 0 else 0.0

    @property
    def noise(self) -> float:
        """Half the widest spread of one side, as a share of its median."""
        return max(_half_spread(self.first), _half_spread(self.second))

    @property
    def is_clear(self) -> bool:
        """Whether the second is better by more than chance explains: every one of its scores beats the first's
        median, and the gain is more than one percent. From no positive score to one is clear too."""
        before, after = statistics.median(self.first), statistics.median(self.second)
        if before <= 0:
            return after > before
        return self.gain > 0.01 and min(self.second) > before


def contest(first: Settings, second: Settings, score: Score, rounds: int) -> Contest:
    """Measure both in turns, `rounds` times each; each round begins with the other one."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order: Sequence[int] = (0, 1) if number % 2 == 0 else (1, 0)
        for side in order:
            found[side].append(score((first, second)[side]))
    return Contest(tuple(found[0]), tuple(found[1]))


def _half_spread(scores: Sequence[float]) -> float:
    middle = statistics.median(scores)
    return (max(scores) - min(scores)) / 2 / middle if middle > 0 else 0.0
