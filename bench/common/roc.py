"""How well limits tell honest answers from cheats: false alarms on answers held back, detection, area under the ROC."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shoal.trust.calibrate import STATISTICS, Differences, Pair, Tail, draw_limits, statistics, windows

WINDOW = 32
RATES = (0.01, 0.001)


def samples(answers: Sequence[Differences], length: int = WINDOW) -> list[dict[str, float]]:
    return [statistics(window) for answer in answers for window in windows(answer, length)]


def score(sample: Mapping[str, float], tails: Mapping[str, Tail]) -> float:
    """-log of the smallest tail probability of any statistic, as the check compares them: larger is more suspicious."""
    return max(_excess(sample[name], tails[name]) for name in STATISTICS)


def _excess(value: float, tail: Tail) -> float:
    beyond = value - tail.base - 1e-6
    if tail.scale == 0:
        return math.inf if beyond > 0 else 0.0
    return beyond / tail.scale


def line(rate: float) -> float:
    """The score that honest answers exceed with chance `rate`, shared by the statistics."""
    return math.log(0.05 / (rate / len(STATISTICS)))


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.96, hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def auc(honest: Sequence[float], cheats: Sequence[float]) -> float:
    """Chance that a cheat scores above an honest answer, ties by half."""
    h, c = np.sort(honest), np.asarray(cheats)
    below, upto = np.searchsorted(h, c, "left"), np.searchsorted(h, c, "right")
    return float((below + upto).mean() / (2 * len(h)))


def tails_of(pair: Pair, honest: Sequence[Differences]) -> tuple[Mapping[str, Tail], list[float]]:
    """Limits from every other honest answer, and the scores of those held back."""
    tails = draw_limits(pair, honest[::2], "bench").tails[WINDOW]
    return tails, [score(sample, tails) for sample in samples(honest[1::2])]


def row(name: str, scores: Sequence[float], held_back: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"cheat": name, "windows": len(scores), "auc": round(auc(held_back, scores), 4)}
    for rate in RATES:
        hits = sum(value > line(rate) for value in scores)
        low, high = wilson(hits, len(scores))
        found[f"seen_at_{rate:g}"] = round(hits / len(scores), 4)
        found[f"interval_at_{rate:g}"] = [round(low, 3), round(high, 3)]
    return found
