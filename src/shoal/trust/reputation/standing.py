"""One peer's figures, and what they are worth as a judge's weight. Pure.

R <- alpha R + (1 - alpha) accuracy, for judging and for answering apart, from 0: whoever is new weighs nothing, and so
does whoever comes back under a new name. The weight is 2R - 1 above chance: a judge that tosses coins says nothing
about answers, however often it is asked, and one that is wrong more often than right is not believed backwards (it
would only have to turn honest to do harm).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

ALPHA = 0.9
"""Memory of about ten observations (1 / (1 - alpha)); the example of arXiv 2510.24801."""

Kind = Literal["judging", "answering"]


@dataclass(frozen=True, slots=True)
class Standing:
    """judging, answering: R of 0 to 1. num_judging, num_answering: observations behind them. stake: units pledged.

    is_admitted  passed the exam. frauds: how often a failed check proved it; a single one takes the weight.
    """

    judging: float = 0.0
    answering: float = 0.0
    num_judging: int = 0
    num_answering: int = 0
    is_admitted: bool = False
    stake: int = 0
    frauds: int = 0


def seen(before: Standing, kind: Kind, accuracy: float, alpha: float = ALPHA) -> Standing:
    """After one more observation; accuracy from 0 to 1, else ValueError."""
    if not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"expected an accuracy from 0 to 1, found {accuracy}")
    if kind == "judging":
        moved = alpha * before.judging + (1 - alpha) * accuracy
        return replace(before, judging=moved, num_judging=before.num_judging + 1)
    moved = alpha * before.answering + (1 - alpha) * accuracy
    return replace(before, answering=moved, num_answering=before.num_answering + 1)


def slashed(before: Standing) -> Standing:
    """After a proven fraud: stake, admission and reputation are gone; what remains is the count."""
    return Standing(frauds=before.frauds + 1)


def weight(standing: Standing) -> float:
    """Of its votes, 0 to 1; 0 for the new, the unexamined, the proven cheats and those no better than chance."""
    if not standing.is_admitted or standing.frauds:
        return 0.0
    return max(0.0, 2.0 * standing.judging - 1.0)
