"""Each refusal of the verifier is taken out in turn: some false proof must then pass, or the list says why none can."""

from __future__ import annotations

from traceback import extract_tb
from types import ModuleType

import numpy as np
import pytest
from corpus import Case, corpus
from mutants import name_of, refusals, without

from shoal.core.errors import InvalidRequest
from shoal.crypto import merkle
from shoal.proof import bounds, gkr, identity_verifier, ligero, opening, proofs, prover, verifier
from shoal.proof.circuit import Circuit, Expr, Identity, Index, Read, Source
from shoal.proof.fakes import Arrays, along
from shoal.proof.prover import prove
from shoal.proof.satisfy import satisfies
from shoal.proof.scalars import P
from shoal.proof.verifier import verify

MODULES = [proofs, verifier, gkr, identity_verifier, opening, ligero, merkle]
SITES = {name_of(*site): site for site in refusals(MODULES, ("ProofRejected", "BadMerkleProof", "_malformed"))}

REDUNDANT = {
    "proofs.from_bytes#0": "keeps a stranger's bytes from filling memory; what follows would refuse them, later",
    "proofs.from_bytes#1": "gives the decoder's refusal its name; without it nothing has been decoded",
    "proofs._words#0": "gives a wrong length its name; numpy refuses the shape",
    "gkr.check_root_denominator#0": "a denominator is zero by a chance that the bound counts already; "
    "test_small_fields.py shows what passes without it in a small field",
    "gkr.check_challenge#0": "gives a division by zero its name, at a challenge that comes up once in 2^128",
    "ligero.check_shapes#0": "repeats what the parser has refused, for callers who parse otherwise",
    "ligero.check_shapes#1": "repeats what the parser has refused, for callers who parse otherwise",
    "merkle.check#0": "indices are the transcript's: distinct and in range; for callers who take them from a proof",
}


def accepts(case: Case) -> bool:
    return not refused_by(case)


def refused_by(case: Case) -> set[str]:
    """Names of the functions the refusal came through; empty if there was none."""
    try:
        verify(case.circuit, case.public, case.proof, weights=case.weights, root=case.root)
    except Exception as error:
        return {frame.name for link in (error, error.__cause__) if link for frame in extract_tb(link.__traceback__)}
    return set()


REFUSED_BY = {case.name: refused_by(case) for case in corpus()}


def test_every_refusal_is_known() -> None:
    assert REDUNDANT.keys() <= SITES.keys()
    assert len(SITES) >= 20


@pytest.mark.parametrize("name", SITES)
def test_without_a_refusal(name: str) -> None:
    function, number = SITES[name]
    met = [case for case in corpus() if function.__name__ in REFUSED_BY[case.name]]
    with without(function, number):
        passed = [case.name for case in met if accepts(case)]
    assert bool(passed) != (name in REDUNDANT), (name, passed)


def test_without_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 v = 1: true modulo p, of no integer."""
    v = Expr((Read("v", along(0)),))
    identity = Identity("twice", (1,), (), ((v, Expr((), 2)),), Expr((), 1))
    circuit = Circuit((Source("v", (1,), "witness"),), (), (), (identity,))
    refused_and_then_passed(circuit, {}, {"v": np.array([-(P // 2)])}, (bounds, "check_bounds"), monkeypatch)


def test_without_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    """y[i] = x[2^62 i]: the fifth index is 0 modulo 2^64."""
    far = Expr((Read("x", (Index(((0, 1 << 62),)),)), Read("y", along(0), -1)))
    sources = (Source("x", (8,), "public"), Source("y", (8,), "public"))
    circuit = Circuit(sources, (), (), (Identity("copy", (8,), (), (), far),))
    public = {"x": np.arange(1, 9), "y": np.array([1, 0, 0, 0, 1, 0, 0, 0])}
    assert satisfies(circuit, public) is not None
    monkeypatch.setattr(prover, "check_circuit", lambda *_: None)
    refused_and_then_passed(circuit, public, {}, (verifier, "check_circuit"), monkeypatch)


def refused_and_then_passed(
    circuit: Circuit, public: Arrays, witness: Arrays, step: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest):
        verify(circuit, public, b"", weights={})
    monkeypatch.setattr(*step, lambda *_: None)
    assert verify(circuit, public, prove(circuit, {}, public, witness), weights={}).bits_proven >= 100
