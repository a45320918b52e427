"""The torch speaker of `models.ops`: runs each operation eagerly on one step's rows.

Activations are (rows, features) in the weights' compute dtype; norms, rope and softmax are computed in float32. A
family's `forward` is called once per step with a fresh `TorchOps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import gelu, silu

from shoal.models.config import ModelConfig
from shoal.models.torch_attention import PagedCache, attend
from shoal.models.torch_graphs import FixedStep
from shoal.models.torch_step import Step
from shoal.models.torch_weights import TorchWeights

TorchAdapter = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Weight name -> A (rank, in) and B (out, rank), the scaling already in B."""


@dataclass(slots=True)
class TorchOps:
    """Speaks one step. `tapped` holds the asked-for residual stream, (outputs, hidden), after the forward."""

    config: ModelConfig
    weights: TorchWeights
    cache: PagedCache
    adapters: Mapping[int, TorchAdapter]
    step: Step | FixedStep
    tapped: torch.Tensor | None = None

    def embed(self, weight: str, scale: float = 1.0) -> torch.Tensor:
        return self.weights.rows(weight, self.step.tokens) * scale

    def rms_norm(self, x: torch.Tensor, weight: str, eps: float) -> torch.Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return (wide * self.weights.vector(weight)).to(x.dtype)

    def head_norm(self, x: torch.Tensor, weight: str, eps: float, num_heads: int) -> torch.Tensor:
        return self.rms_norm(x.unflatten(1, (num_heads, -1)), weight, eps).flatten(1)

    def linear(
        self, x: torch.Tensor, weights: Sequence[str], biases: Sequence[str | None] = ()
    ) -> tuple[torch.Tensor, ...]:
        out = [self.weights.matmul(x, weight) for weight in weights]
        for y, bias in zip(out, biases, strict=False):
            if bias is not None:
                y += self.weights.vector(bias).to(y.dtype)
        for y, weight in zip(out, weights, strict=True):
            self._add_adapters(y, x, weight)
        return tuple(out)

    def _add_adapters(self, y: torch.Tensor, x: torch.Tensor, weight: str) -> None:
        """y += x A^T B^T at the rows of each adapter that changes `weight`."""
        for slot, rows in self.step.adapter_rows.items():
            if weight in self.adapters[slot]:
                a, b = self.adapters[slot][weight]
                y.index_add_(0, rows, x[rows] @ a.T @ b.T)

    def rope(self, x: torch.Tensor, num_heads: int, kind: int) -> torch.Tensor:
        cos, sin = self.step.rope_table(kind)
        half = cos.shape[-1]
        heads = x.unflatten(1, (num_heads, -1)).to(torch.float32)
        first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
        return turned.flatten(1).to(x.dtype)

    def attention(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        window: int | None = None,
        softcap: float = 0.0,
    ) -> torch.Tensor:
        q, k, v = (x.unflatten(1, (-1, self.config.head_dim)) for x in (q, k, v))
        self.cache.write(layer, self.step.slots, k, v)
        keys, values, out = self.cache.keys[layer], self.cache.values[layer], torch.empty_like(q)
        for group in self.step.groups(window):
            seqs = group.slots.shape[0]
            part = q[group.rows].unflatten(0, (seqs, -1))
            mixed = attend(part, keys[group.slots], values[group.slots], group.mask, scale, softcap)
            out[group.rows] = mixed.flatten(0, 1)
        return out.flatten(1)

    def gated(self, gate: torch.Tensor, up: torch.Tensor, activation: Literal["silu", "gelu_tanh"]) -> torch.Tensor:
        return (silu(gate) if activation == "silu" else gelu(gate, approximate="tanh")) * up

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def experts(
        self, x: torch.Tensor, router: torch.Tensor, gate: str, up: str, down: str, per_token: int, renormalize: bool,
        activation: Literal["silu", "gelu_tanh"],
    ) -> torch.Tensor:  # fmt: skip
        share, chosen = torch.softmax(router.to(torch.float32), dim=-1).topk(per_token, dim=-1)  # (rows, per_token)
        if renormalize:
            share = share / share.sum(-1, keepdim=True)
        by_expert = chosen.flatten().argsort()
        counts = torch.bincount(chosen.flatten(), minlength=router.shape[1]).tolist()  # waits for the device
        out = torch.zeros_like(x, dtype=torch.float32)
        for expert, picks in enumerate(by_expert.split(counts)):
            if not counts[expert]:
                continue
            rows = picks // per_token
            hidden = self._expert(x[rows], gate, up, down, expert, activation)
            out.index_add_(0, rows, hidden.to(torch.float32) * share.flatten()[picks, None])
        return out.to(x.dtype)

    def _expert(
        self, x: torch.Tensor, gate: str, up: str, down: str, expert: int, activation: Literal["silu", "gelu_tanh"]
    ) -> torch.Tensor:
        opened = self.gated(self.weights.matmul(x, gate, expert), self.weights.matmul(x, up, expert), activation)
        return self.weights.matmul(opened, down, expert)

    def tap(self, layer: int, x: torch.Tensor) -> None:
        if layer == self.step.batch.tap_layer:
            self.tapped = x[self.step.output_rows].to(torch.float32)

    def given(self, width: int) -> torch.Tensor:
        """`Batch.inputs`, on the device."""
        inputs = self.step.batch.inputs
        if inputs is None or inputs.shape[1:] != (width,):
            raise ValueError(f"expected inputs {width} wide, found {None if inputs is None else inputs.shape}")
        return torch.from_numpy(inputs.copy()).to(self.step.tokens.device, self.weights.dtype)

    def gathered(self, x: torch.Tensor) -> torch.Tensor:
        """The batch's output rows of x, in float32."""
        return x[self.step.output_rows].to(torch.float32)

    def logits(self, x: torch.Tensor, weight: str, softcap: float = 0.0) -> torch.Tensor:
        out = self.weights.matmul(x[self.step.output_rows], weight).to(torch.float32)
        return softcap * torch.tanh(out / softcap) if softcap else out
