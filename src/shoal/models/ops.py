"""The vocabulary a network is written in, with two speakers: native (records a program) and torch (runs eagerly).

A family is one function `forward(ops, config)` that composes these operations over opaque activations `X` of shape
(rows, features); weights are referred to by their canonical names. The native speaker calls it once at load and keeps
the recorded program; the torch speaker calls it at every step. So a family may not branch on values, only on `config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

X = TypeVar("X")


class Ops(Protocol[X]):
    def embed(self, weight: str, scale: float = 1.0) -> X:
        """Rows of `weight` picked by the batch's tokens, times `scale`: (rows, hidden)."""
        ...

    def rms_norm(self, x: X, weight: str, eps: float) -> X:
        """x / sqrt(mean(x^2) + eps) * weight, per row."""
        ...

    def head_norm(self, x: X, weight: str, eps: float, num_heads: int) -> X:
        """`rms_norm` over each head's own dimensions."""
        ...

    def linear(self, x: X, weights: Sequence[str], biases: Sequence[str | None] = ()) -> tuple[X, ...]:
        """x @ W^T + b for each weight (out, in); several weights share one pass over x. LoRA deltas apply here."""
        ...

    def rope(self, x: X, num_heads: int, kind: int) -> X:
        """Rotate each head by the row's position with `config.rope_kinds[kind]`."""
        ...

    def attention(
        self, layer: int, q: X, k: X, v: X, scale: float, window: int | None = None, softcap: float = 0.0
    ) -> X:
        """Write k and v to the cache, attend causally to each row's own sequence: (rows, heads * head_dim)."""
        ...

    def gated(self, gate: X, up: X, activation: Literal["silu", "gelu_tanh"]) -> X:
        """activation(gate) * up."""
        ...

    def add(self, x: X, y: X) -> X: ...

    def experts(
        self, x: X, router: X, gate: str, up: str, down: str, per_token: int, renormalize: bool,
        activation: Literal["silu", "gelu_tanh"],
    ) -> X:  # fmt: skip
        """Mixture of experts: softmax of `router` (rows, experts), the `per_token` largest, optionally renormalised.

        Weights are stacked: gate and up (experts, ffn, hidden), down (experts, hidden, ffn).
        """
        ...

    def tap(self, layer: int, x: X) -> None:
        """Mark the residual stream after `layer`, so that a batch can ask for it."""
        ...

    def logits(self, x: X, weight: str, softcap: float = 0.0) -> X:
        """x @ W^T at the batch's output rows only: (outputs, vocab)."""
        ...
