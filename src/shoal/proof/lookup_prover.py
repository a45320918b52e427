"""The prover's side of the lookups: which row each one is, how often each row is met, and the leaves of the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.core.errors import InvalidRequest
from shoal.proof import field, logup
from shoal.proof.circuit import Circuit, Lookup, Table
from shoal.proof.claims import Shapes
from shoal.proof.expressions import Values, evaluate
from shoal.proof.field import Base
from shoal.proof.fractions import Layer
from shoal.proof.logup import Compression
from shoal.proof.satisfy import no_row
from shoal.proof.scalars import P

Rows = npt.NDArray[np.unsignedinteger]
"""Row of the table for every index of a lookup's space."""


@dataclass(frozen=True, slots=True)
class RowFinder:
    """A table made ready for finding rows. mixed: one field element for each row, ascending; order: their rows.

    first: value of the first row of the first column, where that column counts up by one (then a row is found at once).
    """

    columns: tuple[Base, ...]
    first: int | None
    mixed: Base
    order: npt.NDArray[np.int64]


def row_finder(table: Table) -> RowFinder:
    columns = tuple(field.from_ints(column) for column in table.columns)
    steps = field.sub(columns[0], columns[0][:1])
    if (steps == np.arange(len(steps), dtype=np.uint64)).all():
        return RowFinder(columns, int(columns[0][0]), columns[0], np.arange(len(steps)))
    mixed = _mix(columns)
    order = np.argsort(mixed, kind="stable")
    return RowFinder(columns, None, mixed[order], order)


def find_rows(finder: RowFinder, keys: Sequence[Base]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Rows of these keys, an array (n,) for each column, and where there is one."""
    if finder.first is not None:
        at = field.sub(keys[0], np.array(finder.first, np.uint64))
        rows = np.minimum(at, np.uint64(len(finder.order) - 1)).astype(np.int64)
    else:
        rows = finder.order[np.minimum(np.searchsorted(finder.mixed, _mix(keys)), len(finder.order) - 1)]
    found = np.ones(rows.shape, np.bool_)
    for column, key in zip(finder.columns, keys, strict=True):
        found &= column[rows] == key
    return rows, found


def rows_of_lookups(circuit: Circuit, shapes: Shapes, values: Values) -> list[Rows]:
    """For each lookup. Raises InvalidRequest naming the first lookup and index whose keys are no row."""
    finders = {table.name: row_finder(table) for table in circuit.tables}
    result = list[Rows]()
    for lookup in circuit.lookups:
        finder = finders[lookup.table]
        rows, found = find_rows(finder, _keys(lookup, shapes, values))
        if not found.all():
            refuse_witness(lookup, int(found.argmin()), values)
        result.append(rows.astype(np.min_scalar_type(len(finder.order))).reshape(lookup.space))
    return result


def refuse_witness(lookup: Lookup, position: int, values: Values) -> None:
    """Raises InvalidRequest that names the index whose keys are no row, given its position in the flat space."""
    place = tuple(int(i) for i in np.unravel_index(position, lookup.space))
    raise InvalidRequest(f"{no_row(lookup, place, values)}; the witness does not satisfy the circuit", "witness")


def multiplicities(circuit: Circuit, rows: Sequence[Rows]) -> dict[str, npt.NDArray[np.int64]]:
    """Source name -> how often each row is looked up."""
    if not circuit.lookups:
        return {}
    counts = {table.name: np.zeros(len(table.columns[0]), np.int64) for table in circuit.tables}
    for lookup, found in zip(circuit.lookups, rows, strict=True):
        counts[lookup.table] += np.bincount(found.reshape(-1), minlength=len(counts[lookup.table]))
    return {logup.multiplicity_name(table): counts[table.name] for table in circuit.tables}


def leaves(
    circuit: Circuit, compression: Compression, rows: Sequence[Rows], counts: Mapping[str, npt.NDArray[np.int64]]
) -> Layer:
    """Numerators and denominators of all lookups and all table rows."""
    plan = logup.leaf_layout(circuit)
    p, q = np.ones(plan.length, np.uint64), np.empty((plan.length, 2), np.uint64)
    tables = [logup.table_denominators(number, table, compression) for number, table in enumerate(circuit.tables)]
    numbers = {table.name: number for number, table in enumerate(circuit.tables)}
    for piece in plan.pieces:
        here = slice(piece.offset, piece.offset + (1 << piece.bits))
        if piece.tensor < len(circuit.lookups):
            table = tables[numbers[circuit.lookups[piece.tensor].table]]
            np.take(table, rows[piece.tensor][piece.slices].reshape(-1), axis=0, out=q[here], mode="clip")
        else:
            number = piece.tensor - len(circuit.lookups)
            q[here] = tables[number][piece.slices]
            p[here] = field.neg(field.from_ints(counts[logup.multiplicity_name(circuit.tables[number])][piece.slices]))
    return Layer(p, q)


def _keys(lookup: Lookup, shapes: Shapes, values: Values) -> list[Base]:
    keep, box = range(len(lookup.space)), shapes.box(*lookup.space)
    grids = [evaluate(key, keep, {}, box, values) for key in lookup.keys]
    return [
        (grid.data[..., 0] if grid.is_ext else grid.data).reshape(-1) for grid in grids
    ]  # sums stay in the base field


def _mix(columns: Sequence[Base]) -> Base:
    """One element for each row; two rows share one by a chance of rows^2 / 2^64, then the table cannot be used."""
    total = columns[0]
    for number, column in enumerate(columns[1:], 1):
        total = field.add(total, field.mul(column, np.array(pow(0x9E37_79B9_7F4A_7C15, number, P), np.uint64)))
    return total
