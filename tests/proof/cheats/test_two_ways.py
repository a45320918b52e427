"""The verdict does not depend on C, nor the count of bits on who counts."""

from __future__ import annotations

import math

import pytest
from corpus import corpus
from statements import softmax, two_layers

from shoal.proof import native
from shoal.proof.fakes import all_examples
from shoal.proof.plain.soundness import error
from shoal.proof.plain.verify import shapes_of
from shoal.proof.plan import make_plan
from shoal.proof.rejected import ProofRejected
from shoal.proof.scalars import P
from shoal.proof.verifier import verify

EXAMPLES = {**all_examples(), "two layers": two_layers(), "softmax": softmax()}


def test_false_proofs_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "function", lambda name, arguments: None)
    for case in corpus()[::3]:
        with pytest.raises(ProofRejected) as caught:
            verify(case.circuit, case.public, case.proof, weights=case.weights, root=case.root)
        assert caught.value.check == case.check, case.name


@pytest.mark.parametrize("name", EXAMPLES)
def test_bits_counted_in_exact_fractions(name: str) -> None:
    """Distinct queries miss less often than the first count says, which draws them with replacement."""
    circuit = EXAMPLES[name].circuit
    for commits in {False, bool(EXAMPLES[name].weights)}:
        exact = error(circuit, shapes_of(circuit, commits), P * P)
        bits = math.log2(exact.denominator) - math.log2(exact.numerator)
        assert bits >= make_plan(circuit, commits).errors.proven >= 100
