"""A forward pass proven and checked, with public weights and with their root alone; nothing else passes for it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from shoal.core.errors import InvalidRequest
from shoal.proof.graph.builder import Builder, identity
from shoal.proof.graph.interpreter import run
from shoal.proof.graph.ranges import Range
from shoal.proof.graph.store import without_weights
from shoal.proof.lower.lower import Lowered, lower
from shoal.proof.rejected import ProofRejected
from shoal.proof.transformer.build import transformer_graph
from shoal.proof.transformer.config import TransformerConfig
from shoal.proof.transformer.forward import Forward, from_bytes, prove_forward, verify_forward
from shoal.proof.transformer.reference import Reference
from shoal.proof.transformer.scales import Scales
from shoal.proof.weights import commit_weights

LLAMA = TransformerConfig(layers=1, hidden=8, heads=2, kv_heads=1, head_dim=4, inner=12, vocab=9)
TOKENS = (3, 8, 0, 3)


@cache
def model(seed: int = 1) -> Lowered:
    rng, shapes = np.random.default_rng(seed), LLAMA.shapes()
    weights = {name: rng.normal(size=shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}
    weights |= {name: np.ones(shape) for name, shape in shapes.items() if len(shape) == 1}
    reference = Reference(LLAMA, weights)
    for start in range(5):
        reference.logits([start, *TOKENS[1:]])
    short = Scales(reference.largest, bits=10, residual=7, rounded=10, one=10, table_bits=10, mantissa=8, headroom=2)
    return lower(transformer_graph(LLAMA, weights, len(TOKENS), short))


@cache
def proven() -> Forward:
    return prove_forward(model(), TOKENS)


def test_what_is_proven_is_what_the_graph_says() -> None:
    logits = run(model().graph, {"tokens": np.array(TOKENS)})["logits"]
    assert np.array_equal(proven().logits, logits)
    assert proven().next_token == int(logits.argmax())
    assert verify_forward(model(), proven()).bits_proven >= 100
    assert verify_forward(model(), from_bytes(proven().to_bytes())).bits_proven >= 100


def test_another_token_logit_or_model_is_rejected() -> None:
    answer, bent = proven(), proven().logits.copy()
    bent[answer.next_token - 1] += 1
    for forged in (replace(answer, tokens=(2, *TOKENS[1:])), replace(answer, logits=bent)):
        with pytest.raises(ProofRejected):
            verify_forward(model(), forged)
    with pytest.raises(ProofRejected):
        verify_forward(model(2), answer)


def test_who_has_the_root_alone_can_check_too() -> None:
    committed = commit_weights(model().circuit, model().weights)
    answer = prove_forward(model(), TOKENS, committed)
    bare = lower(without_weights(model().graph))
    assert model().graph.arrays.keys() - bare.graph.arrays.keys() == model().weights.keys()
    assert verify_forward(bare, answer, committed.root).bits_proven >= 100
    with pytest.raises(ProofRejected):
        verify_forward(bare, answer, commit_weights(model(2).circuit, model(2).weights).root)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokens": TOKENS[1:]}, "tokens: expected shape"),
        ({"tokens": (9, *TOKENS[1:])}, "tokens: expected 0 to 8"),
        ({"logits": np.zeros(8, np.int64)}, "logits: expected shape"),
        ({"logits": np.full(9, 1 << 62)}, "logits: expected -"),
    ],
)
def test_answers_that_do_not_fit_the_model_are_rejected_in_words(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ProofRejected, match=said):
        verify_forward(model(), replace(proven(), **changed))  # type: ignore[arg-type]


def test_bytes_are_read_strictly() -> None:
    whole = proven().to_bytes()
    for broken in (whole[:-1], whole + b"\0", b"", Forward(TOKENS, np.zeros(9, np.int64), b"").to_bytes()[1:]):
        with pytest.raises(ProofRejected, match="format"):
            from_bytes(broken)


def test_a_graph_that_is_no_forward_pass_is_refused() -> None:
    b = Builder()
    x = b.input("x", (2,), Range(0, 3))
    other = lower(b.finish((b.affine("y", [(2, x, identity(1))], (2,)),)))
    with pytest.raises(InvalidRequest, match="transformer_graph"):
        prove_forward(other, (1, 2))
