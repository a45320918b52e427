"""Which tokens may be drawn, and drawing one: top-k, top-p, min-p over a row of logits, without sorting the row.

Tokens are ordered by logit, largest first, equal logits by lower id. Each rule keeps a beginning of that order:
top_k its first k, top_p the shortest part with mass >= top_p (Holtzman et al. 2020; mass relative to what top_k kept),
min_p the tokens at least min_p times as likely as the first (Nguyen et al. 2024). So together they keep the shortest.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np

from shoal.core.errors import LocalError
from shoal.core.request import Sampling

BLOCK = 256
"""Weights summed at once while drawing: a cumulative sum over 49,152 float64 costs 150 us, block sums cost 9 us."""

HEAD = 16_384
"""A token of probability >= 1 / HEAD is one of at most HEAD: cheap to sort, and mostly they hold the nucleus."""

SLACK = 1e-5
"""Relative difference allowed for between two float32 sums of the same weights in another order."""

TEMPERATURES = (1e-30, 1e30)
"""What float32 can divide by, also -inf: beyond, the answer has long been greedy, or every token equally likely."""


def choose(logits: np.ndarray, sampling: Sampling, uniform: float) -> int:
    """Index drawn from `logits`, float32 (n,), with `uniform` in [0, 1). LocalError where there is no distribution."""
    largest = check(logits)
    if sampling.temperature == 0:
        return int(logits.argmax())
    ids = kept(logits, sampling)
    values = logits if ids is None else logits[ids]
    drawn = draw(_weights(values, largest, sampling.temperature), uniform)
    return drawn if ids is None else int(ids[drawn])


def check(logits: np.ndarray) -> np.float32:
    """The largest logit. LocalError for NaN or +inf, and where nothing is left to choose; -inf is probability zero."""
    largest: np.float32 = logits.max()
    if largest == -math.inf:
        raise LocalError("no token may follow: every logit is masked; loosen logit_bias or the constraint")
    if not math.isfinite(largest):
        raise LocalError(f"expected finite logits, found {largest}: the weights or the kernel are broken")
    return largest


def kept(logits: np.ndarray, sampling: Sampling) -> np.ndarray | None:
    """Increasing indices of the tokens that may be drawn at a temperature above 0, or None for all of them."""
    ids = None
    if 0 < sampling.top_k < len(logits):
        ids = largest_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        ids = _nucleus(logits, ids, sampling.temperature, sampling.top_p)
    if sampling.min_p > 0:
        likely = logits if ids is None else logits[ids]
        likely_enough = np.flatnonzero(likely >= _threshold(logits.max(), sampling.temperature, sampling.min_p))
        ids = likely_enough if ids is None else ids[likely_enough]
    return ids


def largest_k(values: np.ndarray, k: int) -> np.ndarray:
    """Increasing indices of the k largest values, equal ones by lower index; 0 < k <= n."""
    return _first(values, k, np.partition(values, len(values) - k)[len(values) - k])


def draw(weights: np.ndarray, uniform: float) -> int:
    """Index i with probability weights[i] / sum, by the inverse of the cumulative sum; never one of weight 0."""
    return _locate(weights, uniform, "right")


def _nucleus(logits: np.ndarray, ids: np.ndarray | None, temperature: float, top_p: float) -> np.ndarray:
    """The first of `ids` (None: of all), as many as reach `top_p` of their mass."""
    if ids is None:
        ids, top_p = _head(logits, temperature, top_p)
    values = logits if ids is None else logits[ids]
    ordered = -np.sort(-values)
    last = _locate(_weights(ordered, ordered[0], temperature), top_p, "left")
    first = _first(values, last + 1, ordered[last])
    return first if ids is None else ids[first]


def _head(logits: np.ndarray, temperature: float, top_p: float) -> tuple[np.ndarray | None, float]:
    """Few indices that are sure to hold the nucleus, and which part of their mass it has; or None: all indices."""
    largest = logits.max()
    weights = _weights(logits, largest, temperature)
    total = float(weights.sum())
    head = np.flatnonzero(logits >= _threshold(largest, temperature, total / HEAD))
    mass = float(weights[head].sum())
    if mass >= top_p * total * (1 + SLACK):
        return head, top_p * total / mass
    return None, top_p


def _weights(logits: np.ndarray, largest: np.floating, temperature: float) -> np.ndarray:
    """Probabilities relative to that of `largest`."""
    weights: np.ndarray = logits - largest
    with np.errstate(over="ignore"):  # to -inf, as it should
        weights /= np.float32(_clamped(temperature))
    np.exp(weights, out=weights)
    return weights


def _clamped(temperature: float) -> float:
    return min(max(temperature, TEMPERATURES[0]), TEMPERATURES[1])


def _threshold(largest: np.floating, temperature: float, weight: float) -> np.float32:
    """The smallest float32 logit of at least this weight: comparing with it decides as float64 would."""
    exact = float(largest) + _clamped(temperature) * math.log(weight)
    rounded = np.float32(exact)
    return rounded if float(rounded) >= exact else np.nextafter(rounded, np.float32(np.inf))


def _first(values: np.ndarray, size: int, last: np.floating) -> np.ndarray:
    """Increasing indices of the first `size` values in this module's order, the last of which is `last`."""
    is_kept = values > last
    is_kept[np.flatnonzero(values == last)[: size - np.count_nonzero(is_kept)]] = True
    return np.flatnonzero(is_kept)


def _locate(weights: np.ndarray, part: float, side: Literal["left", "right"]) -> int:
    """Where the cumulative sum reaches ("left") or passes ("right") `part` of the total: by blocks, then in one."""
    sums = np.add.reduceat(weights, _starts(len(weights))).astype(np.float64)
    block, rest = _search(sums, part * float(sums.sum()), side)
    piece = weights[block * BLOCK : (block + 1) * BLOCK].astype(np.float64)
    return block * BLOCK + _search(piece, rest, side)[0]


def _search(weights: np.ndarray, target: float, side: Literal["left", "right"]) -> tuple[int, float]:
    """The index whose part of the cumulative sum holds `target`, and how far into that part it lies."""
    cumulative = np.cumsum(weights)
    target = min(target, float(np.nextafter(cumulative[-1], 0)))  # rounding must not lead past the last positive weight
    index = int(np.searchsorted(cumulative, target, side=side))
    return index, target - (float(cumulative[index - 1]) if index else 0.0)


@lru_cache(maxsize=8)
def _starts(size: int) -> np.ndarray:
    return np.arange(0, size, BLOCK)
