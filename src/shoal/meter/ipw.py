"""Intelligence per watt: accuracy over power, accuracy over energy, with intervals; and what routing would save.

Definitions of arXiv 2511.07885: APW = mean accuracy / mean watts, APJ = mean accuracy / mean joules of a query.
Intervals are percentile bootstrap over queries, so a setting that got lucky on few queries shows it.

The routing simulation charges what the paper's rows do not: a query the small model gets wrong costs its attempt too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Tried:
    """One query answered: whether right, the joules it took and the seconds."""

    is_right: bool
    joules: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Interval:
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """Of one setting. apw: accuracy per watt; apj: accuracy per joule of a query; watts: mean power while answering."""

    accuracy: Interval
    apw: Interval
    apj: Interval
    watts: float
    joules: float


def score(tried: Sequence[Tried], seed: int = 0) -> Score:
    """95 % intervals. ValueError without queries, or for queries that took no time or no energy."""
    if not tried:
        raise ValueError("expected at least one query")
    rows = np.array([(one.is_right, one.joules, one.seconds) for one in tried], np.float64)
    if (rows[:, 1:] <= 0).any():
        raise ValueError("expected joules and seconds above 0 for every query")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(rows), (RESAMPLES, len(rows)))

    def interval(of: Callable[[np.ndarray], np.ndarray]) -> Interval:
        low, high = np.percentile(of(rows[picks].mean(1)), (2.5, 97.5))
        return Interval(float(of(rows.mean(0)[None])[0]), float(low), float(high))

    means = rows.mean(0)
    return Score(
        accuracy=interval(lambda mean: mean[:, 0]),
        apw=interval(lambda mean: mean[:, 0] * mean[:, 2] / mean[:, 1]),
        apj=interval(lambda mean: mean[:, 0] / mean[:, 1]),
        watts=float(means[1] / means[2]),
        joules=float(means[1]),
    )


@dataclass(frozen=True, slots=True)
class Routed:
    """Joules of all queries, and the share answered rightly."""

    joules: float
    accuracy: float


def routed(small: Sequence[Tried], large: Sequence[Tried], router: float, charged: bool, seed: int = 0) -> Routed:
    """The same queries with a router that knows with probability `router` whether the small model will be right.

    A query it believes the small model gets right goes there; if it was wrong, the large one answers too (the user
    asks again). charged: the small model's failed attempt counts. Without it the figures are the paper's, too good.
    """
    if len(small) != len(large):
        raise ValueError(f"expected both on the same queries, found {len(small)} and {len(large)}")
    rng = np.random.default_rng(seed)
    joules, right = 0.0, 0
    for little, big in zip(small, large, strict=True):
        believes = little.is_right if rng.random() < router else not little.is_right
        if believes and little.is_right:
            joules, right = joules + little.joules, right + 1
            continue
        joules += big.joules + (little.joules if believes and charged else 0.0)
        right += big.is_right
    return Routed(joules, right / len(small) if small else 0.0)
