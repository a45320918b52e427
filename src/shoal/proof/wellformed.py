"""Whether a circuit means anything: names, shapes and axes. Ranges are the business of bounds.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from shoal.core.errors import InvalidRequest
from shoal.proof import logup
from shoal.proof.circuit import Circuit, Expr, Index, IntArray, Kind, Read, Source

MOST = 1 << 62
"""Indices are computed in 64 bits: an axis of a source that could be asked for an entry this far out is refused."""


def check_circuit(circuit: Circuit) -> None:
    """Raises InvalidRequest that names the constraint and what is wrong with it."""
    sources = {source.name: source for source in circuit.sources}
    _check_names(circuit)
    for source in circuit.sources:
        _check_source(source, circuit)
    tables = {table.name: table for table in circuit.tables}
    for table in circuit.tables:
        lengths = {len(column) for column in table.columns}
        _require(len(lengths) == 1 and min(lengths) > 0, table.name, "columns of one length, at least one entry")
        for column in table.columns:
            _require(column.ndim == 1, table.name, f"columns of one axis, found shape {column.shape}")
            _check_integers(table.name, column)
    for lookup in circuit.lookups:
        _require(lookup.table in tables, lookup.label, f"a table of this circuit, found {lookup.table!r}")
        _require(
            len(lookup.keys) == len(tables[lookup.table].columns), lookup.label, "a key for each column of the table"
        )
        _check_space(lookup.label, lookup.space)
        for key in lookup.keys:
            _check_expr(lookup.label, key, lookup.space, sources)
    for identity in circuit.identities:
        _check_space(identity.label, identity.space + identity.summed)
        _check_expr(identity.label, identity.out, identity.space, sources)
        for factor in (factor for pair in identity.pairs for factor in pair):
            _check_expr(identity.label, factor, identity.space + identity.summed, sources)


def reads_of(circuit: Circuit) -> Iterator[Read]:
    for lookup in circuit.lookups:
        for key in lookup.keys:
            yield from key.reads
    for identity in circuit.identities:
        for expr in (identity.out, *(factor for pair in identity.pairs for factor in pair)):
            yield from expr.reads


def _check_names(circuit: Circuit) -> None:
    sources, tables = [source.name for source in circuit.sources], [table.name for table in circuit.tables]
    counted = [source.name for source in logup.multiplicity_sources(circuit)]
    unknown = sorted(circuit.constants.keys() - set(sources))
    _require(not unknown, "circuit", f"constants of sources alone, found {unknown}")
    for names in (sources + counted, tables):
        double = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        _require(not double, "circuit", f"sources, and tables, of different names, found twice: {double}")


def _check_source(source: Source, circuit: Circuit) -> None:
    _require(
        all(length > 0 for length in source.shape), source.name, f"axes of at least one entry, found {source.shape}"
    )
    _require(source.kind in get_args(Kind), source.name, f"a kind of {get_args(Kind)}, found {source.kind!r}")
    ordered = source.bounds is None or source.bounds[0] <= source.bounds[1]
    _require(ordered, source.name, f"bounds in order, found {source.bounds}")
    known = source.name in circuit.constants
    _require(known == (source.kind == "constant"), source.name, "numbers in `constants` for constants alone")
    if known:
        found = circuit.constants[source.name].shape
        _require(found == source.shape, source.name, f"constants of shape {source.shape}, found {found}")
        _check_integers(source.name, circuit.constants[source.name])


def _check_integers(where: str, array: IntArray) -> None:
    found = f"{array.dtype.str} of shape {array.shape}"
    _require(array.dtype.kind == "i" and array.dtype.isnative, where, f"signed integers of this machine, found {found}")


def _check_space(label: str, lengths: Sequence[int]) -> None:
    _require(all(length > 0 for length in lengths), label, f"axes of at least one index, found {tuple(lengths)}")


def _check_expr(label: str, expr: Expr, lengths: Sequence[int], sources: Mapping[str, Source]) -> None:
    for read in expr.reads:
        _require(read.source in sources, label, f"a source of this circuit, found {read.source!r}")
        shape = sources[read.source].shape
        _require(len(read.indices) == len(shape), label, f"an index for each of {len(shape)} axes of {read.source!r}")
        used = [axis for index in read.indices for axis, _ in index.terms]
        _require(len(set(used)) == len(used), label, f"axes of {read.source!r} to share no axis of the space")
        _require(all(0 <= axis < len(lengths) for axis in used), label, f"axes below {len(lengths)}, found {used}")
        for index in read.indices:
            _check_index(label, index, sources)
            reach = abs(index.offset) + sum(abs(stride) * lengths[axis] for axis, stride in index.terms)
            _require(reach < MOST, label, f"indices of {read.source!r} below {MOST}, found up to {reach}")


def _check_index(label: str, index: Index, sources: Mapping[str, Source]) -> None:
    _require(not (index.summed and (index.terms or index.offset or index.gather)), label, "nothing beside `summed`")
    if index.gather is not None:
        source = sources.get(index.gather)
        known = source is not None and source.kind in ("public", "constant") and len(source.shape) == 1
        _require(known, label, f"a public vector to gather by, found {index.gather!r}")


def _require(holds: bool, where: str, expected: str) -> None:
    if not holds:
        raise InvalidRequest(f"{where}: expected {expected}; the circuit cannot be proven", "circuit")
