"""Range checks cut into limbs so that committed columns and table rows together are fewest.

A number of b bits is checked as limbs whose widths add up to b; each width is a table of 2^width rows, of which the
prover commits the multiplicities. Wide limbs need few columns and long tables, narrow ones the reverse: for a network
of 10^4 numbers tables of 2^9 .. 2^11 are best, for 10^7 numbers 2^16. No check is looser than asked for, so that sums
of what is checked are bounded as the graph declares.
"""

from __future__ import annotations

from collections.abc import Mapping

MAX_WIDTH = 16
MOST_LIMBS = 6
Widths = tuple[int, ...]
"""Widths of the limbs, lowest first."""

Plan = Mapping[int, Widths]
"""Widths for numbers of so many bits."""


def candidates(bits: int) -> list[Widths]:
    """Ways to cut a number: into one limb, two, ..., as even as they can be."""
    return [_even(bits, limbs) for limbs in range(-(-bits // MAX_WIDTH), min(bits, MOST_LIMBS) + 1)]


def _even(bits: int, limbs: int) -> Widths:
    return tuple(bits // limbs + (place < bits % limbs) for place in range(limbs))


def plan(counts: Mapping[int, int]) -> dict[int, Widths]:
    """Widths for every number of bits, given how many numbers have it. Deterministic; the better of two optima."""
    alone = {bits: min(candidates(bits), key=lambda widths: _cost({bits: widths}, counts)) for bits in counts}
    fewest = {bits: candidates(bits)[0] for bits in counts}
    return min((_improve(start, counts) for start in (alone, fewest)), key=lambda found: _cost(found, counts))


def _improve(found: dict[int, Widths], counts: Mapping[int, int]) -> dict[int, Widths]:
    """The best change of one entry, again and again."""
    while True:
        changes = ({**found, bits: widths} for bits in counts for widths in candidates(bits))
        best = min(changes, key=lambda plan: _cost(plan, counts), default=found)
        if _cost(best, counts) >= _cost(found, counts):
            return found
        found = best


def _cost(found: Plan, counts: Mapping[int, int]) -> int:
    """Committed numbers: limbs, and one multiplicity for each row of each table in use."""
    tables = {width for widths in found.values() for width in widths}
    return sum(counts[bits] * len(widths) for bits, widths in found.items()) + sum(1 << width for width in tables)
