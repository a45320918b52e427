"""What is true proves and verifies; what is not is refused by the prover and, whatever was proven, by the verifier."""

from __future__ import annotations

import re

import numpy as np
import pytest

from shoal.core.errors import InvalidRequest
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
def test_other_public_numbers_are_rejected(name: str) -> None:
    example = EXAMPLES[name]
    proof = proof_of(example)
    for source, values in example.public.items():
        changed = values.copy()
        changed[tuple(0 for _ in values.shape)] += 1
        with pytest.raises(ProofRejected):
            verify(example.circuit, {**example.public, source: changed}, proof, weights=example.weights)
