"""Where the line is between an honest answer and another one: limits from honest runs, for a stated false-alarm rate.

Two honest machines differ as far as their arithmetic does, so a line is drawn for a pair: the arithmetic of whoever
answered, that of whoever checks, and the format of the weights. Four statistics of an answer are compared with limits:

    drift  root mean square over positions of the distance between states' directions (0 the same, 1 unrelated)
    logit  mean absolute difference of the chosen tokens' raw logits, nats
    gap    mean distance, in probability, between the token returned and the one the sampler chooses
    jump   the largest of those distances

Tails are exponential beyond the 95th percentile (peaks over threshold with shape 0), so a limit can be drawn at a rate
that few samples reach; docs/checks.md has the rates that were then measured on answers held back.

What this does not protect against: a cheat that differs less than honest arithmetics do, for instance one that leaves
out what changes nothing here. Limits of one model are applied to others of the same format: calibrate your own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.core.receipt import ModelIdentity
from shoal.trust.check_rerun import Differences

STATISTICS = ("drift", "logit", "gap", "jump")
LENGTHS = (8, 32, 128)
"""Tokens of the answers that limits are drawn for; an answer is compared with the longest that is not longer."""

_QUANTILE = 0.95


def statistics(found: Differences) -> dict[str, float]:
    """Of one answer, or a window of one."""
    return {
        "drift": float(np.sqrt(np.mean(np.square(found.drift)))),
        "logit": float(np.mean(found.logit)),
        "gap": float(np.mean(found.gap)),
        "jump": float(np.max(found.gap)),
    }


def windows(found: Differences, length: int) -> list[Differences]:
    """Disjoint windows of `length` positions, each as good as an answer of that length."""
    starts = range(0, len(found.gap) - length + 1, length)
    return [
        Differences(*(part[start : start + length] for part in (found.drift, found.logit, found.gap)))
        for start in starts
    ]


@dataclass(frozen=True, slots=True)
class Tail:
    """base: the 95th percentile of `count` honest samples. scale: mean of what lies beyond, above it, at the upper end
    of its 95 % interval, so that a limit drawn from few samples is wide rather than wrong."""

    base: float
    scale: float
    count: int
    largest: float

    def limit(self, rate: float) -> float:
        """What honest answers exceed with this chance; `rate` at most 0.05."""
        if not 0 < rate <= 1 - _QUANTILE + 1e-12:
            raise ValueError(f"expected a rate in (0, {1 - _QUANTILE:.2f}], found {rate}")
        return self.base + self.scale * math.log((1 - _QUANTILE) / rate)


def fit(samples: Sequence[float]) -> Tail:
    """ValueError for fewer than forty samples: two would lie beyond."""
    values = np.sort(np.asarray(samples, np.float64))
    if len(values) < 40:
        raise ValueError(f"expected at least 40 honest samples, found {len(values)}")
    base = float(np.quantile(values, _QUANTILE))
    beyond = values[values > base] - base
    scale = float(beyond.mean()) * (1.0 + 2.0 / math.sqrt(len(beyond))) if len(beyond) else 0.0
    return Tail(base, scale, len(values), float(values[-1]))


@dataclass(frozen=True, slots=True)
class Pair:
    """Whose arithmetic meets whose, on weights of which format. Texts as `arithmetic` writes them."""

    answered: str
    checked: str
    quantization: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Tails by length and statistic. `origin`: from which runs, in words."""

    pair: Pair
    tails: Mapping[int, Mapping[str, Tail]]
    origin: str

    def of(self, num_tokens: int) -> Mapping[str, Tail] | None:
        """For an answer of so many tokens; None for one too short to tell."""
        usable = [length for length in self.tails if length <= num_tokens]
        return self.tails[max(usable)] if usable else None


def arithmetic(identity: ModelIdentity) -> str:
    """ "cpu native-avx2 f16": the device, the kernels and how keys and values are stored."""
    return " ".join(part for part in (identity.device, identity.kernels, identity.kv) if part)


def draw_limits(pair: Pair, answers: Iterable[Differences], origin: str) -> Limits:
    """From honest answers. ValueError where there are fewer than forty windows of the shortest length."""
    listed = list(answers)
    tails: dict[int, dict[str, Tail]] = {}
    for length in LENGTHS:
        samples = [statistics(window) for answer in listed for window in windows(answer, length)]
        if len(samples) >= 40 or length == LENGTHS[0]:
            tails[length] = {name: fit([sample[name] for sample in samples]) for name in STATISTICS}
    return Limits(pair, tails, origin)
