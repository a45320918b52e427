"""The third speaker of `models.ops`: whole windows at once, differentiable, in float32. For training only.

Activations are (batch * length, features); every window is a sequence of its own, from position 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from shoal.core.errors import Unsupported
from shoal.models.config import ModelConfig
from shoal.models.rope import rope_tables

Parameters = Mapping[str, torch.Tensor]
"""float32 tensors by canonical name."""


@dataclass(slots=True)
class TrainingOps:
    """tokens int64 (batch, length). candidates: rows of the head that logits are wanted of; None: all."""

    config: ModelConfig
    parameters: Parameters
    tokens: torch.Tensor
    candidates: torch.Tensor | None = None

    def embed(self, weight: str, scale: float = 1.0) -> torch.Tensor:
        return functional.embedding(self.tokens.flatten(), self.parameters[weight]) * scale

    def rms_norm(self, x: torch.Tensor, weight: str, eps: float) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * self.parameters[weight]

    def head_norm(self, x: torch.Tensor, weight: str, eps: float, num_heads: int) -> torch.Tensor:
        return self.rms_norm(x.unflatten(1, (num_heads, -1)), weight, eps).flatten(1)

    def linear(
        self, x: torch.Tensor, weights: Sequence[str], biases: Sequence[str | None] = ()
    ) -> tuple[torch.Tensor, ...]:
        names = [*biases, *[None] * (len(weights) - len(biases))]
        return tuple(
            functional.linear(x, self.parameters[weight], None if bias is None else self.parameters[bias])
            for weight, bias in zip(weights, names, strict=True)
        )

    def rope(self, x: torch.Tensor, num_heads: int, kind: int) -> torch.Tensor:
        batch, length = self.tokens.shape
        tables = rope_tables(self.config.rope_kinds[kind], self.config.head_dim, np.arange(length))
        cos, sin = (torch.from_numpy(table).repeat(batch, 1)[:, None] for table in tables)
        half, heads = cos.shape[-1], x.unflatten(1, (num_heads, -1))
        first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1).flatten(1)

    def attention(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int | None = None,
        softcap: float = 0.0,
    ) -> torch.Tensor:  # fmt: skip
        heads = [x.unflatten(0, self.tokens.shape).unflatten(2, (-1, self.config.head_dim)) for x in (q, k, v)]
        queries, keys, values = (x.transpose(1, 2) for x in heads)  # (batch, heads, length, head_dim)
        group = queries.shape[1] // keys.shape[1]
        keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
        scores = queries @ keys.transpose(2, 3) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        mixed = torch.softmax(scores.masked_fill(self._hidden(window), -torch.inf), dim=-1) @ values
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

    def _hidden(self, window: int | None) -> torch.Tensor:
        """bool (length, length): keys a query may not see."""
        position = torch.arange(self.tokens.shape[1])
        distance = position[:, None] - position
        return (distance < 0) | (distance >= (window or len(position)))

    def gated(self, gate: torch.Tensor, up: torch.Tensor, activation: Literal["silu", "gelu_tanh"]) -> torch.Tensor:
        opened = functional.silu(gate) if activation == "silu" else functional.gelu(gate, approximate="tanh")
        return opened * up

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def experts(
        self, x: torch.Tensor, router: torch.Tensor, gate: str, up: str, down: str, per_token: int, renormalize: bool,
        activation: Literal["silu", "gelu_tanh"],
    ) -> torch.Tensor:  # fmt: skip
        raise Unsupported("a draft is trained dense; expected a config from draft_config, found one with experts")

    def tap(self, layer: int, x: torch.Tensor) -> None:
        """Nobody asks while training."""

    def logits(self, x: torch.Tensor, weight: str, softcap: float = 0.0) -> torch.Tensor:
        """At every position: (batch * length, candidates or vocab)."""
        rows = self.parameters[weight]
        if self.candidates is not None:
            rows = functional.embedding(self.candidates, rows)
        out = x @ rows.T
        return softcap * torch.tanh(out / softcap) if softcap else out
