"""A tiny Llama: integers against floats, its circuit against wrong columns, its proof against wrong answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from circuit_checks import faults, holds, values_of

from shoal.core.errors import BadConfig
from shoal.proof.graph.interpreter import run
from shoal.proof.lower.lower import lower
from shoal.proof.prover import prove
from shoal.proof.rejected import ProofRejected
from shoal.proof.transformer.build import transformer_graph
from shoal.proof.transformer.config import TransformerConfig, Weights
from shoal.proof.transformer.reference import Reference
from shoal.proof.transformer.scales import Scales
from shoal.proof.verifier import verify

LLAMA = TransformerConfig(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, inner=96, vocab=100)
SMALL = TransformerConfig(layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, inner=12, vocab=9)
SHORT = {"bits": 10, "table_bits": 10, "one": 10, "mantissa": 8, "rounded": 10, "residual": 7}
"""Scales for tables of 2^10 rows."""


def random_weights(config: TransformerConfig, seed: int = 1) -> Weights:
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=shape) / np.sqrt(shape[-1]) for name, shape in config.shapes().items()}
    gains = {name: 1 + 0.2 * rng.normal(size=shape) for name, shape in config.shapes().items() if len(shape) == 1}
    return made | gains | {"embedding": rng.normal(size=config.shapes()["embedding"])}


def prompts(config: TransformerConfig, length: int, count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, config.vocab, (count, length))


def test_integers_say_what_the_floats_say() -> None:
    weights = random_weights(LLAMA)
    reference, asked = Reference(LLAMA, weights), prompts(LLAMA, 12, 6)
    expected = [reference.logits(tokens.tolist()) for tokens in asked]
    graph = transformer_graph(LLAMA, weights, 12, Scales(reference.largest))
    for tokens, floats in zip(asked, expected, strict=True):
        values = run(graph, {"tokens": tokens})
        logits = values["logits"] * 2.0 ** -graph.tensors["logits"].fraction
        assert np.abs(logits - floats).max() < 0.004 * floats.std()


def test_future_tokens_do_not_matter_and_past_ones_do() -> None:
    weights = random_weights(SMALL)
    reference, (tokens,) = Reference(SMALL, weights), prompts(SMALL, 5, 1)
    reference.logits(tokens.tolist())
    scales = Scales(reference.largest, headroom=3)
    values = run(transformer_graph(SMALL, weights, 5, scales), {"tokens": tokens})
    other = run(
        transformer_graph(SMALL, weights, 5, scales), {"tokens": np.array([*tokens[:3], (tokens[3] + 1) % 9, 0])}
    )
    assert np.array_equal(values["0.residual"][:3], other["0.residual"][:3])
    assert not np.array_equal(values["0.residual"][3], other["0.residual"][3])
    mask = values["before 0 5"]
    assert not (values["0.shares"] * mask).any()
    assert (values["0.shares"].sum(axis=-1) > 0.98 * 2**16).all()


def test_no_column_of_a_layer_can_change_alone() -> None:
    weights = random_weights(replace(SMALL, layers=1))
    reference, (tokens,) = Reference(replace(SMALL, layers=1), weights), prompts(SMALL, 3, 1)
    reference.logits(tokens.tolist())
    holds(
        transformer_graph(replace(SMALL, layers=1), weights, 3, Scales(reference.largest, **SHORT)), {"tokens": tokens}
    )


def test_a_forward_pass_is_proven() -> None:
    weights = random_weights(SMALL)
    reference, (tokens,) = Reference(SMALL, weights), prompts(SMALL, 4, 1)
    reference.logits(tokens.tolist())
    lowered = lower(transformer_graph(SMALL, weights, 4, Scales(reference.largest, **SHORT)))
    assignment = lowered.assign({"tokens": tokens})
    assert faults(lowered.circuit, values_of(lowered, assignment)) == []
    proof = prove(lowered.circuit, lowered.weights, assignment.public, assignment.witness)
    assert verify(lowered.circuit, assignment.public, proof, lowered.weights).bits_proven >= 100
    for name, values in assignment.public.items():
        forged = values.copy()
        forged[-1] = (forged[-1] + 1) % 9 if name == "tokens" else forged[-1] + 1
        with pytest.raises(ProofRejected):
            verify(lowered.circuit, {**assignment.public, name: forged}, proof, lowered.weights)


def test_weights_of_another_shape_are_refused() -> None:
    weights = random_weights(SMALL)
    with pytest.raises(BadConfig, match=r"1.up: expected weights of shape \(12, 8\), found None"):
        Reference(SMALL, {name: array for name, array in weights.items() if name != "1.up"})
