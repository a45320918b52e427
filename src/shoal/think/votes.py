"""What judges said, as data: verdicts on pairs, and on whether an answer is good enough to be compared at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Vote:
    """Judge `judge` saw answer `first` as A and `second` as B; `for_first` is 1 (A), 0 (B) or between (unsure, 0.5)."""

    judge: int
    first: int
    second: int
    for_first: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.for_first <= 1.0:
            raise ValueError(f"expected a verdict from 0 to 1, found {self.for_first}")
        if self.first == self.second:
            raise ValueError(f"expected two answers, found answer {self.first} twice")


@dataclass(frozen=True, slots=True)
class Ballot:
    """Everything one judge said. good: which answers it found good enough; None: it did not say."""

    judge: int
    votes: tuple[Vote, ...] = ()
    good: frozenset[int] | None = None


def wins(votes: Iterable[Vote], count: int, weights: Mapping[int, float]) -> np.ndarray:
    """float64 (count, count): weight of the verdicts that i beats j. A judge without weight counts nothing."""
    table = np.zeros((count, count))
    for vote in votes:
        weight = weights.get(vote.judge, 0.0)
        table[vote.first, vote.second] += weight * vote.for_first
        table[vote.second, vote.first] += weight * (1.0 - vote.for_first)
    return table


def good_enough(ballots: Sequence[Ballot], count: int, weights: Mapping[int, float]) -> frozenset[int]:
    """Answers that at least half of the weight that spoke found good; all of them if none is."""
    spoke = [ballot for ballot in ballots if ballot.good is not None and weights.get(ballot.judge, 0.0) > 0]
    total = sum(weights[ballot.judge] for ballot in spoke)
    good = frozenset(
        answer
        for answer in range(count)
        if sum(weights[ballot.judge] for ballot in spoke if ballot.good is not None and answer in ballot.good)
        >= total / 2
    )
    return good or frozenset(range(count))


def flips(votes: Iterable[Vote]) -> float:
    """Share of pairs whose verdict turned with the order: 0 is steady, 1 votes by position. 0 without pairs."""
    seen: dict[tuple[int, int, int], float] = {}
    turned, both = 0, 0
    for vote in votes:
        low, high = sorted((vote.first, vote.second))
        for_low = vote.for_first if vote.first == low else 1.0 - vote.for_first
        other = seen.pop((vote.judge, low, high), None)
        if other is None:
            seen[vote.judge, low, high] = for_low
        else:
            both, turned = both + 1, turned + ((for_low - 0.5) * (other - 0.5) < 0)
    return turned / both if both else 0.0
