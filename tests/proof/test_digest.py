"""Equal circuits, equal digests; any other word of a circuit, another digest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shoal.proof.circuit import Circuit, Expr, Identity, Index, Lookup, Read, Source, Table
from shoal.proof.digest import array_digest, arrays_digest, circuit_digest

READ = Read("x", (Index(((0, 1),)), Index(offset=2)))
CIRCUIT = Circuit(
    (Source("x", (3, 4), "witness"), Source("c", (2,), "constant")),
    (Table("t", (np.arange(4), np.arange(4) * 2)),),
    (Lookup("in t", (3,), "t", (Expr((READ,)), Expr((READ,), 1))),),
    (Identity("sum", (3,), (4,), ((Expr((READ,)), Expr((), 1)),), Expr((READ,))),),
    {"c": np.array([5, 6])},
)


def variants() -> list[Circuit]:
    """CIRCUIT with one thing changed each."""
    identity, lookup = CIRCUIT.identities[0], CIRCUIT.lookups[0]
    indices = [
        Index(((0, 2),)), Index(((1, 1),)), Index(((0, 1),), 1), Index(summed=True), Index(((0, 1),), gather="x"),
        Index(((0, 1), (1, 1))),
    ]  # fmt: skip
    reads = [replace(READ, indices=(index, READ.indices[1])) for index in indices]
    reads += [replace(READ, source="c"), replace(READ, coefficient=2), replace(READ, indices=READ.indices[::-1])]
    exprs = [*(Expr((read,)) for read in reads), Expr((READ, READ)), Expr((READ,), 1), Expr()]
    return [
        *(replace(CIRCUIT, identities=(replace(identity, out=expr),)) for expr in exprs),
        *(replace(CIRCUIT, identities=(replace(identity, pairs=((expr, Expr((), 1)),)),)) for expr in exprs),
        *(replace(CIRCUIT, lookups=(replace(lookup, keys=(expr, lookup.keys[1])),)) for expr in exprs),
        replace(CIRCUIT, identities=(replace(identity, space=(4,)),)),
        replace(CIRCUIT, identities=(replace(identity, summed=(3,)),)),
        replace(CIRCUIT, identities=(replace(identity, label="sums"),)),
        replace(CIRCUIT, identities=(replace(identity, pairs=()),)),
        replace(CIRCUIT, identities=(identity, identity)),
        replace(CIRCUIT, lookups=(replace(lookup, space=(2,)),)),
        replace(CIRCUIT, lookups=(replace(lookup, table="u"),)),
        replace(CIRCUIT, lookups=()),
        replace(CIRCUIT, tables=(Table("t", (np.arange(4), np.arange(4))),)),
        replace(CIRCUIT, tables=(Table("t", (np.arange(4),)),)),
        replace(CIRCUIT, sources=CIRCUIT.sources[::-1]),
        replace(CIRCUIT, sources=(replace(CIRCUIT.sources[0], kind="public"), CIRCUIT.sources[1])),
        replace(CIRCUIT, sources=(replace(CIRCUIT.sources[0], shape=(4, 3)), CIRCUIT.sources[1])),
        replace(CIRCUIT, constants={"c": np.array([5, 7])}),
        replace(CIRCUIT, constants={"d": np.array([5, 6])}),
    ]


def test_every_part_counts() -> None:
    found = {circuit_digest(circuit) for circuit in [CIRCUIT, *variants()]}
    assert len(found) == 1 + len(variants())
    assert all(len(digest) == 32 for digest in found)


def test_the_storage_type_does_not_count() -> None:
    narrow = replace(CIRCUIT, constants={"c": np.array([5, 6], np.int8)})
    assert circuit_digest(narrow) == circuit_digest(CIRCUIT)
    strided = np.arange(12, dtype=np.int16).reshape(3, 4)[:, ::2]
    assert array_digest(strided) == array_digest(np.ascontiguousarray(strided).astype(np.int64))


def test_shapes_and_numbers_count() -> None:
    arrays = [
        np.array([1]), np.array(1), np.array([[1]]), np.array([1, 0]), np.array([-1]), np.array([257]), np.array([0]),
        np.zeros(0, np.int64), np.array([2**63 - 1]), np.array([-(2**63)]), np.array([127]), np.array([128]),
    ]  # fmt: skip
    assert len({array_digest(array) for array in arrays}) == len(arrays)
    with pytest.raises(OverflowError, match="64-bit"):
        array_digest(np.array([2**63], np.uint64))


def test_named_arrays() -> None:
    one, two = np.array([1]), np.array([2])
    assert arrays_digest({"a": one, "b": two}) == arrays_digest({"b": two, "a": one})
    assert len({arrays_digest(x) for x in ({"a": one, "b": two}, {"a": two, "b": one}, {"a": one}, {})}) == 4
