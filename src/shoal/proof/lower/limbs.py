"""Range checks cut into limbs so that committed columns and table rows together are fewest.

A number of b bits is checked as limbs whose widths add up to b; each width is a table of 2^width rows, of which the
prover commits the multiplicities. Wide limbs need few columns and long tables, narrow ones the reverse: for a network
of 10^4 numbers tables of 2^9 .. 2^11 are best, for 10^7 numbers 2^16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_WIDTH = 16
Widths = tuple[int, ...]
"""Widths of the limbs, lowest first."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Numbers of `bits` bits. exact: the check must refuse 2^bits; else any bound of at least 2^bits will do."""

    bits: int
    exact: bool


Plan = Mapping[Demand, Widths]


def candidates(demand: Demand) -> list[Widths]:
    """Ways to cut one number. Exact ones are as even as they can be; loose ones all of one width."""
    bits = max(demand.bits, 1)
    if demand.exact:
        return [_even(bits, limbs) for limbs in range(-(-bits // MAX_WIDTH), min(bits, 6) + 1)]
    return [(width,) * -(-bits // width) for width in range(min(4, bits), min(bits, MAX_WIDTH) + 1)]


def _even(bits: int, limbs: int) -> Widths:
    return tuple(bits // limbs + (place < bits % limbs) for place in range(limbs))


def plan(counts: Mapping[Demand, int]) -> dict[Demand, Widths]:
    """Widths for every demand, given how many numbers make it. Deterministic; a local optimum from two starts."""
    starts = [{d: min(candidates(d), key=lambda w: _cost({d: w}, counts)) for d in counts}]
    starts.append({d: min(candidates(d), key=lambda w: (len(w), w)) for d in counts})
    return min((_improve(start, counts) for start in starts), key=lambda found: _cost(found, counts))


def _improve(found: dict[Demand, Widths], counts: Mapping[Demand, int]) -> dict[Demand, Widths]:
    while True:
        best = found
        for demand in counts:
            for widths in candidates(demand):
                best = min(best, {**found, demand: widths}, key=lambda plan: _cost(plan, counts))
        if best is found or _cost(best, counts) >= _cost(found, counts):
            return found
        found = best


def _cost(found: Mapping[Demand, Widths], counts: Mapping[Demand, int]) -> int:
    """Committed numbers: limbs, and one multiplicity for each row of each table in use."""
    tables = {width for widths in found.values() for width in widths}
    return sum(counts[demand] * len(widths) for demand, widths in found.items()) + sum(1 << width for width in tables)
