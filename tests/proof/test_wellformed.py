"""Circuits that mean nothing are refused by name and place, before anything is proven or checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shoal.core.errors import InvalidRequest
from shoal.proof.circuit import Circuit, Expr, Identity, Index, Lookup, Read, Source, Table
from shoal.proof.fakes import along, dense, read
from shoal.proof.prover import prove
from shoal.proof.wellformed import check_circuit

GOOD = dense().circuit
LOOKUP, IDENTITY = GOOD.lookups[0], GOOD.identities[0]


def key(circuit_read: Read) -> Circuit:
    return replace(GOOD, lookups=(replace(LOOKUP, keys=(Expr((circuit_read,)),)),))


BAD: dict[str, Circuit] = {
    "found twice": replace(GOOD, sources=(*GOOD.sources, GOOD.sources[0])),
    r"found twice: \['multiplicity of rest'\]": replace(
        GOOD, sources=(*GOOD.sources, Source("multiplicity of rest", (1,), "witness"))
    ),
    "at least one entry, found": replace(GOOD, sources=(replace(GOOD.sources[0], shape=(0, 5)),)),
    "in `constants` for constants alone": replace(GOOD, constants={"x": np.zeros((3, 5), np.int64)}),
    "constants of shape": replace(
        GOOD, sources=(Source("c", (2,), "constant"),), constants={"c": np.zeros(3, np.int64)}
    ),
    "columns of one length": replace(GOOD, tables=(Table("rest", (np.arange(3), np.arange(4))),)),
    "signed integers of this machine": replace(GOOD, tables=(Table("rest", (np.arange(16).astype(">i8"),)),)),
    "signed integers of this machine, found <u8": replace(
        GOOD,
        sources=(Source("c", (2,), "constant"),),
        constants={"c": np.zeros(2, np.uint64)},
    ),
    "a table of this circuit": replace(GOOD, lookups=(replace(LOOKUP, table="other"),)),
    "a key for each column": replace(GOOD, lookups=(replace(LOOKUP, keys=LOOKUP.keys * 2),)),
    "axes of at least one index": replace(GOOD, lookups=(replace(LOOKUP, space=(3, 0)),)),
    "a source of this circuit": key(Read("nothing", along(0, 1))),
    "an index for each": key(Read("r", along(0))),
    "to share no axis": key(Read("r", along(0, 0))),
    "axes below 2": key(Read("r", along(0, 2))),
    "share no axis": key(Read("r", (Index(((0, 1), (0, 2))), Index(((1, 1),))))),
    "nothing beside": key(Read("r", (Index(((0, 1),), summed=True), Index()))),
    "a public vector to gather by": key(Read("r", (Index(((0, 1),), gather="q"), Index(((1, 1),))))),
    "axes below 2, found": replace(GOOD, identities=(replace(IDENTITY, out=read("r", 0, 2)),)),
    "axes below 3": replace(GOOD, identities=(replace(IDENTITY, pairs=((read("r", 0, 3), Expr()),)),)),
}


@pytest.mark.parametrize("words", BAD)
def test_refused(words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check_circuit(BAD[words])


def test_what_is_good_is_not() -> None:
    check_circuit(GOOD)
    check_circuit(Circuit((), (), (), (Identity("nothing", (), (), (), Expr()),)))
    check_circuit(Circuit((), (SMALL_TABLE,), (Lookup("constant", (), "t", (Expr((), 1),)),), ()))


SMALL_TABLE = Table("t", (np.arange(3),))


def test_numbers_have_to_fit_the_sources() -> None:
    example = dense()
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, r"missing \['q', 'r'\]"),
        ({**example.witness, "s": example.witness["q"]}, r"unknown \['s'\]"),
        ({**example.witness, "q": example.witness["q"].T}, "expected integers of shape"),
        ({**example.witness, "q": example.witness["q"].astype(np.float64)}, "q: expected integers"),
    )
    for witness, words in cases:
        with pytest.raises(InvalidRequest, match=words):
            prove(example.circuit, example.weights, example.public, witness)


def test_any_type_that_holds_the_integers_will_do() -> None:
    example = dense()
    proof = prove(example.circuit, example.weights, example.public, example.witness)
    kinds: tuple[np.dtype[np.signedinteger[Any]], ...] = (np.dtype("<i4"), np.dtype(">i4"), np.dtype(">i8"))
    for kind in kinds:
        weights, public, witness = (
            {name: values.astype(kind) for name, values in part.items()}
            for part in (example.weights, example.public, example.witness)
        )
        assert prove(example.circuit, weights, public, witness) == proof
