"""How many verifiers to draw: chances of a wrong verdict, exactly.

Of `peers` candidates `bad` collude and say what suits them; `drawn` are drawn without replacement. An honest verifier
sees a cheat with chance `power` and doubts an honest answer with chance `alarm`. More than half must say "fail".

    bad drawn          hypergeometric(peers, bad, drawn)
    honest who see it  binomial(drawn - bad drawn, power)
"""

from __future__ import annotations

from fractions import Fraction
from math import comb


def bad_drawn(peers: int, bad: int, drawn: int) -> list[Fraction]:
    """Chance of 0, 1, ..., `drawn` colluders in the draw. ValueError for impossible numbers."""
    if not 0 <= bad <= peers or not 0 < drawn <= peers:
        raise ValueError(f"expected 0 <= bad <= peers and 0 < drawn <= peers, found {bad}, {drawn} of {peers}")
    total = comb(peers, drawn)
    return [Fraction(comb(bad, count) * comb(peers - bad, drawn - count), total) for count in range(drawn + 1)]


def captured(peers: int, bad: int, drawn: int) -> Fraction:
    """Chance that half or more of the draw collude: then they decide, or block."""
    return sum((chance for count, chance in enumerate(bad_drawn(peers, bad, drawn)) if 2 * count >= drawn), Fraction(0))


def _at_least(trials: int, needed: int, chance: float) -> float:
    return sum(
        comb(trials, hits) * chance**hits * (1 - chance) ** (trials - hits) for hits in range(needed, trials + 1)
    )


def detected(peers: int, bad: int, drawn: int, power: float) -> float:
    """A cheat fails: more than half of the draw say so. Colluders never do."""
    needed = drawn // 2 + 1
    return sum(
        float(chance) * _at_least(drawn - count, needed, power)
        for count, chance in enumerate(bad_drawn(peers, bad, drawn))
    )


def falsely_accused(peers: int, bad: int, drawn: int, alarm: float) -> float:
    """An honest answer fails: more than half of the draw say so. Colluders always do."""
    needed = drawn // 2 + 1
    return sum(
        float(chance) * _at_least(drawn - count, max(0, needed - count), alarm)
        for count, chance in enumerate(bad_drawn(peers, bad, drawn))
    )
