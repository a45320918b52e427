"""One hash for everything a proof is about: equal circuits have equal digests, whatever arrays they were built with.

Canonical CBOR (RFC 8949, section 4.2) of the circuit's fields in their order; an array enters by its own hash.
"""

from __future__ import annotations

from collections.abc import Mapping

import cbor2
import numpy as np
import numpy.typing as npt

from shoal.crypto.hashes import blake3_digest, hasher
from shoal.proof.circuit import Circuit, Expr, Identity, Index, Lookup, Source, Table

_CIRCUIT, _ARRAY, _ARRAYS = "shoal proof v1 circuit", "shoal proof v1 array", "shoal proof v1 arrays"
_CHUNK = 1 << 20
"""Numbers converted at a time."""

Plain = list[object]


def circuit_digest(circuit: Circuit) -> bytes:
    """32 bytes: sources, tables, constraints and constants, names and order included."""
    fields: Plain = [
        [_source(source) for source in circuit.sources],
        [_table(table) for table in circuit.tables],
        [_lookup(lookup) for lookup in circuit.lookups],
        [_identity(identity) for identity in circuit.identities],
        [[name, array_digest(array)] for name, array in sorted(circuit.constants.items())],
    ]
    return blake3_digest(_CIRCUIT, cbor2.dumps(fields, canonical=True))


def arrays_digest(arrays: Mapping[str, npt.NDArray[np.integer]]) -> bytes:
    """32 bytes for named arrays, such as a model's weights; their order does not count."""
    return blake3_digest(_ARRAYS, cbor2.dumps([[n, array_digest(arrays[n])] for n in sorted(arrays)], canonical=True))


def array_digest(array: npt.NDArray[np.integer]) -> bytes:
    """32 bytes: shape and integers. Their storage type does not count: they are hashed as the narrowest one."""
    kind = np.dtype(f"<i{_width(array)}")
    state = hasher(_ARRAY)
    state.update(cbor2.dumps([*array.shape, kind.itemsize], canonical=True))
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        state.update(flat[start : start + _CHUNK].astype(kind).tobytes())
    return bytes(state.digest())


def _width(array: npt.NDArray[np.integer]) -> int:
    """Bytes of the narrowest signed type that holds all numbers. Raises OverflowError beyond 64 bits."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for width in (1, 2, 4, 8):
        if -(1 << 8 * width - 1) <= low and high < 1 << 8 * width - 1:
            return width
    raise OverflowError(f"expected signed 64-bit integers, found {low} to {high}")


def _source(source: Source) -> Plain:
    return [source.name, list(source.shape), source.kind]


def _table(table: Table) -> Plain:
    return [table.name, [array_digest(column) for column in table.columns]]


def _lookup(lookup: Lookup) -> Plain:
    return [lookup.label, list(lookup.space), lookup.table, [_expr(key) for key in lookup.keys]]


def _identity(identity: Identity) -> Plain:
    pairs = [[_expr(a), _expr(b)] for a, b in identity.pairs]
    return [identity.label, list(identity.space), list(identity.summed), pairs, _expr(identity.out)]


def _expr(expr: Expr) -> Plain:
    reads = [[read.source, [_index(index) for index in read.indices], int(read.coefficient)] for read in expr.reads]
    return [reads, int(expr.constant)]


def _index(index: Index) -> Plain:
    terms = [[axis, int(stride)] for axis, stride in index.terms]
    return [terms, int(index.offset), index.summed, index.gather]
