"""How much of a draft is worth computing: as much as makes the whole step's tokens come fastest, often nothing.

A step with R rows that makes T tokens goes at T / time(R). Draft tokens add rows that cost time and tokens that come
with their chance of being right; the length with the best rate is taken if it gains at least MARGIN. As batches fill,
a row costs what a token brings, and drafting ends by itself at the machine's own knee.

The chance of a token is learned: how often tokens drafted on like grounds (source, length of match, the drafter's own
probability) were right lately, over all sequences and then in this one. Both forget, so that what was turned down is
tried again now and then.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import Draft

MARGIN = 1.03
"""A draft must promise at least this times the rate without it: proposing and checking cost a little too."""

OVERALL_MEMORY, OWN_MEMORY = 0.98, 0.9
"""What of the counts is left after a newer one: the last 50 tokens on like grounds, the last 10 of one sequence."""

OVERALL_WEIGHT = 4.0
"""Tokens of one sequence that weigh as much as everybody's."""

PRIOR_WEIGHT = 2.0

RETRY = 0.998
"""What of the counts is left each time their grounds were judged not worth a row."""


@dataclass(slots=True)
class Rate:
    """Decaying counts; `prior` is the rate before any."""

    prior: float
    right: float = 0.0
    tried: float = 0.0

    def learn(self, is_right: bool, memory: float) -> None:
        self.right = self.right * memory + is_right
        self.tried = self.tried * memory + 1

    def fade(self, part: float) -> None:
        self.right *= part
        self.tried *= part

    @property
    def value(self) -> float:
        return (self.right + PRIOR_WEIGHT * self.prior) / (self.tried + PRIOR_WEIGHT)


@dataclass(slots=True)
class Record:
    """One sequence's own counts: grounds -> [right, tried]."""

    counts: dict[Hashable, list[float]] = field(default_factory=dict)


class Policy:
    def __init__(self, times: StepTimes) -> None:
        self.times = times
        self._rates: dict[Hashable, Rate] = {}

    def length(self, draft: Draft, record: Record, rows: int, tokens: float) -> tuple[int, float]:
        """How many tokens of `draft` to compute beside `rows` rows that make `tokens`; how many will be right."""
        base = tokens / self.times(rows)
        best, chosen, expected, chance, promised = base * MARGIN, 0, 0.0, 1.0, 0.0
        for index, ground in enumerate(grounds(draft)):
            chance *= self._chance(ground, record)
            promised += chance
            rate = (tokens + promised) / self.times(rows + index + 1)
            if rate > best:
                best, chosen, expected = rate, index + 1, promised
        if not chosen and draft.tokens:
            self._rate(next(iter(grounds(draft)))).fade(RETRY)
        return chosen, expected

    def learn(self, draft: Draft, num_computed: int, num_right: int, record: Record) -> None:
        """Of the first `num_computed` tokens of `draft`, `num_right` were right and the next, if any, was wrong."""
        for index, ground in enumerate(grounds(draft)[: min(num_right + 1, num_computed)]):
            is_right = index < num_right
            self._rate(ground).learn(is_right, OVERALL_MEMORY)
            own = record.counts.setdefault(ground, [0.0, 0.0])
            own[0] = own[0] * OWN_MEMORY + is_right
            own[1] = own[1] * OWN_MEMORY + 1

    def _chance(self, ground: Hashable, record: Record) -> float:
        overall = self._rate(ground).value
        own = record.counts.get(ground)
        return overall if own is None else (own[0] + OVERALL_WEIGHT * overall) / (own[1] + OVERALL_WEIGHT)

    def _rate(self, ground: Hashable) -> Rate:
        if (rate := self._rates.get(ground)) is None:
            rate = self._rates[ground] = Rate(_prior(ground))
        return rate


def grounds(draft: Draft) -> list[Hashable]:
    """What each token's chance is learned by: source, match length then, the drafter's probability for this token."""
    found: list[Hashable] = []
    before = 1.0
    for index, p in enumerate(draft.probs):
        match = min((draft.match + index).bit_length(), 6) if draft.match else min(index, 15)
        found.append((draft.source, match, round(4 * p / before)))
        before = p
    return found


def _prior(ground: Hashable) -> float:
    """Modest for short matches, good for long ones; the drafter's own probability where no match says anything."""
    assert isinstance(ground, tuple)
    source, match, quarter = ground
    if source == "model":
        return 0.6
    return float(min(0.9, 0.15 * match + 0.1 + 0.05 * quarter))
