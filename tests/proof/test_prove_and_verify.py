"""What is true proves and verifies; what is not is refused by the prover and, whatever was proven, by the verifier."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from shoal.core.errors import InvalidRequest
from shoal.proof import identity_prover, lookup_prover
from shoal.proof.circuit import Circuit
from shoal.proof.fakes import Example, all_examples, with_witness
from shoal.proof.prover import prove
from shoal.proof.rejected import ProofRejected
from shoal.proof.satisfy import satisfies
from shoal.proof.verifier import Verified, verify
from shoal.proof.weights import commit_weights

EXAMPLES = all_examples()


def proof_of(example: Example) -> bytes:
    return prove(example.circuit, example.weights, example.public, example.witness)


def check(example: Example, proof: bytes) -> Verified:
    return verify(example.circuit, example.public, proof, weights=example.weights)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_true_verifies(name: str) -> None:
    example = EXAMPLES[name]
    assert satisfies(example.circuit, example.values) is None
    found = check(example, proof_of(example))
    assert 100 <= found.bits_proven <= found.bits_conjectured


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.weights])
def test_committed_weights(name: str) -> None:
    example = EXAMPLES[name]
    committed = commit_weights(example.circuit, example.weights)
    proof = prove(example.circuit, example.weights, example.public, example.witness, committed)
    assert verify(example.circuit, example.public, proof, root=committed.root).bits_proven >= 100
    other = {key: np.where(np.arange(w.size).reshape(w.shape) == 1, 0, w) for key, w in example.weights.items()}
    with pytest.raises(ProofRejected):
        verify(example.circuit, example.public, proof, root=commit_weights(example.circuit, other).root)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_prover_names_what_does_not_hold(name: str) -> None:
    example = EXAMPLES[name]
    for source, values in example.witness.items():
        wrong = with_witness(example, source, tuple(n - 1 for n in values.shape), 1)
        fault = satisfies(wrong.circuit, wrong.values)
        assert fault is not None
        with pytest.raises(InvalidRequest, match=re.escape(str(fault))):
            proof_of(wrong)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_prover_that_does_not_look_is_rejected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column of the witness changed, at both ends: the statement is false and the verifier alone says so."""
    monkeypatch.setattr(lookup_prover, "refuse_witness", lambda *_: None)
    monkeypatch.setattr(identity_prover, "refuse_witness", lambda *_: None)
    example = EXAMPLES[name]
    for source, values in example.witness.items():
        for index in (tuple(0 for _ in values.shape), tuple(n - 1 for n in values.shape)):
            proof = proof_of(with_witness(example, source, index, 1))
            with pytest.raises(ProofRejected, match=r"opening|lookup|identity"):
                check(example, proof)


def changes(example: Example) -> Iterator[tuple[Circuit, dict[str, np.ndarray]]]:
    """The statement with one weight, one constant, or one entry of a table changed."""
    for name, weights in example.weights.items():
        other = weights.copy()
        other.flat[-1] = 0 if other.flat[-1] else 1
        yield example.circuit, {**example.weights, name: other}
    for name, values in example.circuit.constants.items():
        changed = {**example.circuit.constants, name: 1 - values}
        yield replace(example.circuit, constants=changed), example.weights
    for number, table in enumerate(example.circuit.tables):
        columns = tuple(np.append(column[:-1], column[-1] + 1) for column in table.columns)
        tables = list(example.circuit.tables)
        tables[number] = replace(table, columns=columns)
        yield replace(example.circuit, tables=tuple(tables)), example.weights


@pytest.mark.parametrize("name", EXAMPLES)
def test_other_statements_are_rejected(name: str) -> None:
    example = EXAMPLES[name]
    proof = proof_of(example)
    for circuit, weights in changes(example):
        with pytest.raises(ProofRejected):
            verify(circuit, example.public, proof, weights=weights)


@pytest.mark.parametrize("name", EXAMPLES)
def test_other_public_numbers_are_rejected(name: str) -> None:
    example = EXAMPLES[name]
    proof = proof_of(example)
    for source, values in example.public.items():
        changed = values.copy()
        changed[tuple(0 for _ in values.shape)] += 1
        with pytest.raises(ProofRejected):
            verify(example.circuit, {**example.public, source: changed}, proof, weights=example.weights)
