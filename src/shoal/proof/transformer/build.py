"""`transformer_graph`: weights, shapes and calibration become an integer graph from token ids to logits."""

from __future__ import annotations

import numpy as np

from shoal.proof.circuit import Index
from shoal.proof.graph import operators
from shoal.proof.graph.builder import Builder, Sum, axis
from shoal.proof.graph.ir import Graph
from shoal.proof.graph.ranges import Range
from shoal.proof.transformer.config import TransformerConfig, Weights
from shoal.proof.transformer.layers import Parts, attention, mlp, rows_from
from shoal.proof.transformer.scales import Scales


def transformer_graph(config: TransformerConfig, weights: Weights, tokens_len: int, calibration: Scales) -> Graph:
    """One forward pass: input `tokens` (tokens_len,), output `logits` (vocab,) of the last position, unrounded.

    `calibration.largest` comes from `Reference` run on prompts like those to be proven. Raises BadConfig for weights
    that do not fit the config.
    """
    config.check(weights)
    p = Parts(Builder(), config, weights, calibration, tokens_len)
    x = _embed(p)
    for layer in range(config.layers):
        last = layer == config.layers - 1
        first = tokens_len - 1 if last else 0
        x = _plus(p, f"{layer}.middle", rows_from(p, f"{layer}.kept", x, first), attention(p, layer, x, first))
        x = _plus(p, f"{layer}.residual", x, mlp(p, layer, x))
    return p.b.finish((_project_out(p, rows_from(p, "last", x, p.b.tensors[x].shape[0] - 1)),))


def _embed(p: Parts) -> str:
    tokens = p.b.input("tokens", (p.length,), Range(0, p.config.vocab - 1))
    table = p.scales.weight(p.weights["embedding"], p.scales.residual)
    return operators.embedding(p.b, "embedded", tokens, p.b.weight("embedding", table, p.scales.residual))


def _plus(p: Parts, name: str, x: str, part: str) -> str:
    """The residual stream: nothing is rounded, so nothing is committed."""
    return operators.add(p.b, name, [(1, x), (1, part)])


def _project_out(p: Parts, x: str) -> str:
    """Final norm with its gain, and the output matrix."""
    b, s = p.b, p.scales
    unit = p.norm("norm.unit", x)
    gain = np.asarray(p.weights["norm"], np.float64) * np.sqrt(p.config.hidden)
    fine = s.weight_fraction(gain, s.fraction("final"), b.tensors[unit].fraction)
    product = operators.multiply(b, "norm.gained", unit, b.weight("norm", s.weight(gain, fine), fine))
    final = s.round_off(b, "final", product, "final")
    matrix = "embedding"
    if "output" in p.weights:
        fine = s.weight_fraction(p.weights["output"], 1 << 10, 0)
        matrix = b.weight("output", s.weight(p.weights["output"], fine), fine)
    how = Sum((p.config.vocab,), (p.config.hidden,), (Index(), axis(1)), (axis(0), axis(1)))
    return b.contract("logits", final, matrix, how)
