"""Where a dishonest prover departs from the protocol, and how it answers when its claim is false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from shoal.proof.plain.scalars import Element, Field


@dataclass(frozen=True, slots=True)
class Lies:
    """at: steps whose message is bent so that the step's own check passes and the lie moves on to the next.

    plants: sumcheck rounds of a false claim are bent, too: the polynomial sent differs from the true one by one with
    as many roots as its degree allows. A challenge on a root makes the claim true: the best a cheat can do in a round.
    """

    at: frozenset[str] = frozenset()
    plants: bool = False


HONEST = Lies()


def lies(*steps: str, plants: bool = False) -> Lies:
    return Lies(frozenset(steps), plants)


def planted(field: Field, true: Sequence[Element], gap: Element, line: tuple[Element, Element]) -> list[Element]:
    """true + a polynomial D of its degree, all of whose roots are in the field, with line . (D(0), D(1)) = gap."""
    for first in count(2):
        d = [(1, 0)]
        for root in range(first, first + len(true) - 1):
            d = _times_linear(field, d, field.number(-root))
        reach = field.add(field.times(line[0], d[0]), field.times(line[1], field.add(*d)))
        if reach != (0, 0):
            factor = field.over(gap, reach)
            return [field.add(c, field.times(factor, e)) for c, e in zip(true, d, strict=True)]
    raise AssertionError


def _times_linear(field: Field, d: list[Element], constant: Element) -> list[Element]:
    """d * (X + constant)."""
    low = [field.times(c, constant) for c in d] + [(0, 0)]
    return [field.add(a, b) for a, b in zip(low, [(0, 0), *d], strict=True)]
