"""Why identities modulo the prime are identities of integers: all numbers have ranges, no sum leaves half the field.

Ranges come from the circuit and the public numbers alone. A witness source gets its range from a lookup that reads all
of it (k = c v + others is in the table, so v = (k - others) / c, where 1 / c may be an integer modulo p: high limbs),
or from an identity whose output it is. A circuit with a source that has none, or a sum that could wrap, is refused.

Rules that stay true in this file:
- a range holds zero, for reads outside of a source give zero;
- arithmetic is in Python integers; nothing here is estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from shoal.core.errors import InvalidRequest
from shoal.proof import axes
from shoal.proof.axes import Box
from shoal.proof.circuit import Circuit, Expr, IntArray, Read, Source
from shoal.proof.scalars import P

Range = tuple[int, int]
"""Least and greatest value, least <= 0 <= greatest."""

Numbers = Mapping[str, npt.NDArray[np.signedinteger]]
_LIMIT = P // 2


@dataclass(frozen=True, slots=True)
class Relation:
    """Sum of reads + constant = a number in `target`, for every index of the box."""

    label: str
    reads: tuple[Read, ...]
    constant: int
    target: Range
    box: Box
    is_linear: bool
    """Whether both sides may be multiplied by a number modulo p: not where the target is a sum of products."""


def check_bounds(circuit: Circuit, numbers: Numbers) -> dict[str, Range]:
    """Range of every source. Raises InvalidRequest. `numbers`: the public sources, and the weights that are known."""
    shapes = {source.name: source.shape for source in circuit.sources}
    known = {source.name: _given(source, circuit, numbers) for source in circuit.sources if source.kind != "witness"}
    gathers = {**circuit.constants, **numbers}
    while missing := shapes.keys() - known.keys():
        found = _derive(list(_relations(circuit, known, gathers, lookups=True)), known, shapes)
        found = found or _derive(list(_relations(circuit, known, gathers, lookups=False)), known, shapes)
        if not found:
            raise _refused(min(missing), "a lookup or identity that holds all of it to a range, found none")
        known |= found
    for is_lookup in (True, False):
        for relation in _relations(circuit, known, gathers, is_lookup):
            _check_relation(relation, known, shapes)
    return known


def check_declared(circuit: Circuit, numbers: Numbers) -> None:
    """Raises InvalidRequest for numbers outside their sources' declared bounds."""
    for source in circuit.sources:
        if source.name in numbers:
            _declared(source, numbers[source.name])


def _given(source: Source, circuit: Circuit, numbers: Numbers) -> Range:
    """Of numbers in hand, checked against the declared range; of a commitment the declared range is believed."""
    values = circuit.constants[source.name] if source.kind == "constant" else numbers.get(source.name)
    if values is None:
        if source.bounds is None:
            raise _refused(source.name, "declared bounds, because the weights are committed, found none")
        return min(source.bounds[0], 0), max(source.bounds[1], 0)
    low, high = _declared(source, values)
    return min(low, 0), max(high, 0)


def _declared(source: Source, values: npt.NDArray[np.signedinteger]) -> Range:
    """Least and greatest of the numbers, which have to be within what the source declares."""
    low, high = int(values.min()), int(values.max())
    if source.bounds is not None and not source.bounds[0] <= low <= high <= source.bounds[1]:
        raise _refused(source.name, f"numbers from {source.bounds[0]} to {source.bounds[1]}, found {low} to {high}")
    return low, high


def _relations(
    circuit: Circuit, known: Mapping[str, Range], gathers: Mapping[str, IntArray], lookups: bool
) -> Iterable[Relation]:
    """What lookups say of their keys, or identities of their outputs (those whose factors have ranges)."""
    if lookups:
        ranges = {t.name: [(int(c.min()), int(c.max())) for c in t.columns] for t in circuit.tables}
        for lookup in circuit.lookups:
            box = Box(lookup.space, gathers)
            for key, target in zip(lookup.keys, ranges[lookup.table], strict=True):
                yield Relation(lookup.label, key.reads, key.constant, target, box, True)
        return
    shapes = {source.name: source.shape for source in circuit.sources}
    for identity in circuit.identities:
        factors = [(_expr(a, known, shapes), _expr(b, known, shapes)) for a, b in identity.pairs]
        if any(a is None or b is None for a, b in factors):
            continue
        total, count = (0, 0), prod(identity.summed)
        for a, b in factors:
            ends = [x * y * count for x in a or () for y in b or ()]
            total = total[0] + min(ends), total[1] + max(ends)
        out, box = identity.out, Box(identity.space, gathers)
        yield Relation(identity.label, out.reads, out.constant, total, box, not identity.pairs)


def _derive(
    relations: list[Relation], known: Mapping[str, Range], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Range]:
    """Ranges that follow for sources without one; the narrowest where several do."""
    parts = dict[str, list[tuple[list[npt.NDArray[np.bool_]], Range]]]()
    for relation in relations:
        for number, read in enumerate(relation.reads):
            if read.source not in known and (found := _solve(relation, number, known, shapes)):
                parts.setdefault(read.source, []).append((_covered(read, shapes[read.source], relation.box), found))
    result = dict[str, Range]()
    for name, group in parts.items():
        full = [found for masks, found in group if all(mask.all() for mask in masks)]
        if full:
            result[name] = min(full, key=lambda found: found[1] - found[0])
        elif _is_covered(shapes[name], [masks for masks, _ in group]):
            result[name] = min(low for _, (low, _) in group), max(high for _, (_, high) in group)
    return result


def _solve(
    relation: Relation, number: int, known: Mapping[str, Range], shapes: Mapping[str, tuple[int, ...]]
) -> Range | None:
    """Range of the source of read `number`, from those of all others; None where it does not follow."""
    read, others = relation.reads[number], relation.reads[:number] + relation.reads[number + 1 :]
    if read.coefficient % P == 0 or any(index.summed for index in read.indices):
        return None
    if any(other.source not in known for other in others):
        return None
    factor = pow(read.coefficient, -1, P)
    ends = sorted(_balanced(factor) * end for end in relation.target)
    low, high = (end - _balanced(factor * relation.constant) for end in ends)
    for other in others:
        least, greatest = _scaled(known[other.source], _balanced(factor * other.coefficient), other, shapes)
        low, high = low - greatest, high - least
    return (min(low, 0), max(high, 0)) if max(-low, high) < _LIMIT else None


def _check_relation(relation: Relation, known: Mapping[str, Range], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Both sides, with all coefficients made integers by one factor, stay within half the field."""
    factors = [1] + [
        pow(read.coefficient, -1, P) for read in relation.reads if relation.is_linear and read.coefficient % P
    ]
    worst = min(_reach(relation, factor, known, shapes) for factor in factors)
    if worst >= _LIMIT:
        raise _refused(relation.label, f"sums below {_LIMIT}, half the field, found up to {worst}")


def _reach(relation: Relation, factor: int, known: Mapping[str, Range], shapes: Mapping[str, tuple[int, ...]]) -> int:
    total = abs(_balanced(factor)) * max(-relation.target[0], relation.target[1], 0) + abs(
        _balanced(factor * relation.constant)
    )
    for read in relation.reads:
        low, high = _scaled(known[read.source], _balanced(factor * read.coefficient), read, shapes)
        total += max(-low, high)
    return total


def _expr(expr: Expr, known: Mapping[str, Range], shapes: Mapping[str, tuple[int, ...]]) -> Range | None:
    if any(read.source not in known for read in expr.reads):
        return None
    parts = [_scaled(known[read.source], read.coefficient, read, shapes) for read in expr.reads]
    low, high = sum(part[0] for part in parts), sum(part[1] for part in parts)
    return min(low, low + expr.constant), max(high, high + expr.constant)


def _scaled(range_: Range, coefficient: int, read: Read, shapes: Mapping[str, tuple[int, ...]]) -> Range:
    """Range of coefficient * read; a summed axis counts for its length."""
    pairs = zip(read.indices, shapes[read.source], strict=True)
    count = coefficient * prod(length for index, length in pairs if index.summed)
    ends = (count * range_[0], count * range_[1])
    return min(ends), max(ends)


def _covered(read: Read, shape: tuple[int, ...], box: Box) -> list[npt.NDArray[np.bool_]]:
    """Which entries of each axis the read meets, somewhere in the box."""
    masks = []
    for index, length in zip(read.indices, shape, strict=True):
        raw = axes.positions(index, [axis for axis, _ in index.terms], box)
        where, mask = axes.picked(index, raw, length, box), np.zeros(length, np.bool_)
        mask[where[where >= 0]] = True
        masks.append(mask)
    return masks


def _is_covered(shape: tuple[int, ...], parts: list[list[npt.NDArray[np.bool_]]]) -> bool:
    """Whether boxes fill a tensor together."""
    filled = np.zeros(shape, np.bool_)
    for masks in parts:
        filled[np.ix_(*masks)] = True
    return bool(filled.all())


def _balanced(value: int) -> int:
    """The integer nearest to zero that is `value` modulo p."""
    value %= P
    return value if value <= P // 2 else value - P


def _refused(where: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: expected {expected}; the circuit proves nothing about integers", "circuit")
