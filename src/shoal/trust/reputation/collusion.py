"""Two judges that agree more than they should, with a stated rate of false alarms.

Over the comparisons both judged, let each be right (as the other judges see it) with its own share, p and q.
Independent judges agree with chance e = p q + (1 - p)(1 - q). Honest judges are not quite independent: they find the
same questions hard. `allowance` says how far, as a correlation: e' = e + allowance (1 - e). The number of agreements
has a binomial's tail; a pair is flagged where that tail is below false_alarm / number of pairs looked at (Bonferroni),
so that a table of honest judges shows any flag at all with at most that chance.

What this does not protect against: colluders that disagree on purpose now and then; two honest peers that run the very
same model look like one (they are: their votes are one vote, and a flag says so). A flag is a reason to look, no proof.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from math import exp, lgamma, log

Said = dict[str, bool]
"""Comparison -> whether a judge preferred the answer listed first."""

FALSE_ALARM, ALLOWANCE, FEWEST = 0.01, 0.1, 20


@dataclass(frozen=True, slots=True)
class Flag:
    """Judges a and b agreed on `agreed` of `common` comparisons where `expected` were to be expected."""

    a: str
    b: str
    agreed: int
    common: int
    expected: float
    chance: float


def flags(
    votes: dict[str, Said], false_alarm: float = FALSE_ALARM, allowance: float = ALLOWANCE, fewest: int = FEWEST
) -> list[Flag]:
    """Every pair of judges beyond the line, the least likely first. Needs a third judge to say what is right."""
    looked = [(a, b, sorted(votes[a].keys() & votes[b].keys())) for a, b in combinations(sorted(votes), 2)]
    looked = [(a, b, common) for a, b, common in looked if len(common) >= fewest]
    found = [flag for a, b, common in looked if (flag := _compared(votes, a, b, common, allowance)) is not None]
    line = false_alarm / max(1, len(looked))
    return sorted((flag for flag in found if flag.chance < line), key=lambda flag: flag.chance)


def tail(agreed: int, common: int, p: float) -> float:
    """P(X >= agreed) of a binomial, summed in logarithms."""
    if p <= 0.0 or p >= 1.0:
        return float(agreed <= common * p)
    terms = (
        lgamma(common + 1) - lgamma(k + 1) - lgamma(common - k + 1) + k * log(p) + (common - k) * log(1 - p)
        for k in range(agreed, common + 1)
    )
    return min(1.0, sum(exp(term) for term in terms))


def _compared(votes: dict[str, Said], a: str, b: str, common: list[str], allowance: float) -> Flag | None:
    others = _majority(said for name, said in votes.items() if name not in (a, b))
    known = [pair for pair in common if pair in others]
    if not known:
        return None
    p, q = (sum(votes[name][pair] == others[pair] for pair in known) / len(known) for name in (a, b))
    independent = p * q + (1 - p) * (1 - q)
    expected = independent + allowance * (1 - independent)
    agreed = sum(votes[a][pair] == votes[b][pair] for pair in known)
    return Flag(a, b, agreed, len(known), expected * len(known), tail(agreed, len(known), expected))


def _majority(saids: Iterable[Said]) -> Said:
    """What most said about each comparison; ties are left out."""
    balance: dict[str, int] = defaultdict(int)
    for said in saids:
        for pair, first in said.items():
            balance[pair] += 1 if first else -1
    return {pair: for_first > 0 for pair, for_first in balance.items() if for_first}
