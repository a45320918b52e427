"""Whether numbers satisfy a circuit, the plain way: every constraint at every index, in Python integers.

The oracle of the tests, and what the prover says of the one index at which it found a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from shoal.proof.circuit import Circuit, Expr, Identity, Index, Lookup, Read
from shoal.proof.scalars import P

Values = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Fault:
    """The first index tuple at which a constraint does not hold, and what was found there."""

    label: str
    index: tuple[int, ...]
    found: str

    def __str__(self) -> str:
        return f"constraint {self.label!r} fails at index {self.index}: {self.found}"


def satisfies(circuit: Circuit, values: Values) -> Fault | None:
    """None, or the first fault. `values` holds all sources but constants."""
    known = {**values, **circuit.constants}
    for lookup in circuit.lookups:
        if fault := lookup_fault(circuit, lookup, known):
            return fault
    for identity in circuit.identities:
        if fault := identity_fault(identity, known):
            return fault
    return None


def lookup_fault(circuit: Circuit, lookup: Lookup, values: Values) -> Fault | None:
    """The first index whose keys are no row of the table."""
    table = next(table for table in circuit.tables if table.name == lookup.table)
    rows = set(zip(*(_residues(column) for column in table.columns), strict=True))
    for i in _indices(lookup.space):
        if tuple(value_at(key, i, values) % P for key in lookup.keys) not in rows:
            return no_row(lookup, i, values)
    return None


def no_row(lookup: Lookup, index: tuple[int, ...], values: Values) -> Fault:
    """The fault of an index whose keys are no row."""
    keys = (value_at(key, index, values) % P for key in lookup.keys)
    near = tuple(key if key <= P // 2 else key - P for key in keys)
    return Fault(lookup.label, index, f"{near} is not a row of table {lookup.table!r}")


def identity_fault(identity: Identity, values: Values) -> Fault | None:
    """The first index at which the products do not sum up to the output."""
    return next(filter(None, (unequal(identity, i, values) for i in _indices(identity.space))), None)


def unequal(identity: Identity, index: tuple[int, ...], values: Values) -> Fault | None:
    """The fault at one index, if there is one."""
    out, total = value_at(identity.out, index, values), 0
    for j in _indices(identity.summed):
        total += sum(value_at(a, index + j, values) * value_at(b, index + j, values) for a, b in identity.pairs)
    if (total - out) % P == 0:
        return None
    return Fault(identity.label, index, f"the products sum to {total}, the output is {out}")


def value_at(expr: Expr, index: tuple[int, ...], values: Values) -> int:
    """An expression at one index tuple, in integers."""
    return expr.constant + sum(read.coefficient * _entry(read, index, values) for read in expr.reads)


def _entry(read: Read, index: tuple[int, ...], values: Values) -> int:
    source = values[read.source]
    choices = [_choices(part, n, index, values) for part, n in zip(read.indices, source.shape, strict=True)]
    return sum(int(source[place]) for place in product(*choices))


def _choices(part: Index, length: int, index: tuple[int, ...], values: Values) -> range | list[int]:
    """Entries of one source axis that are summed up: one, none (outside), or all."""
    if part.summed:
        return range(length)
    at = part.offset + sum(stride * index[axis] for axis, stride in part.terms)
    if part.gather is not None:
        table = values[part.gather]
        if not 0 <= at < len(table):
            return []
        at = int(table[at])
    return [at] if 0 <= at < length else []


def _indices(lengths: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return product(*(range(n) for n in lengths))


def _residues(column: npt.NDArray[np.int64]) -> list[int]:
    return [int(entry) % P for entry in column]
