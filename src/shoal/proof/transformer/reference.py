"""The float model, plainly: what the integer graph is measured against, and where its ranges come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shoal.proof.graph.tables import silu
from shoal.proof.transformer.config import TransformerConfig, Weights, rotations

Doubles = npt.NDArray[np.float64]


class Reference:
    """A forward pass that remembers the largest absolute value of every intermediate tensor."""

    def __init__(self, config: TransformerConfig, weights: Weights) -> None:
        config.check(weights)
        self.config, self.weights = config, weights
        self.largest: dict[str, float] = {}

    def logits(self, tokens: Sequence[int]) -> Doubles:
        """Of the last position, (vocab,)."""
        x = self._see("embedding", np.asarray(self.weights["embedding"][list(tokens)], np.float64))
        for layer in range(self.config.layers):
            x = x + self._see(f"{layer}.o", self._attention(layer, x))
            x = x + self._see(f"{layer}.down", self._mlp(layer, x))
            self._see(f"{layer}.residual", x)
        last = self._see("final", self._unit(x[-1:]) * self._gain("norm"))
        logits: Doubles = (last @ self.weights.get("output", self.weights["embedding"]).T.astype(np.float64))[0]
        return logits

    def _see(self, name: str, x: Doubles) -> Doubles:
        self.largest[name] = max(self.largest.get(name, 0.0), float(np.abs(x).max()))
        return x

    def _weight(self, name: str) -> Doubles:
        return np.asarray(self.weights[name], np.float64)

    def _gain(self, name: str) -> Doubles:
        """A norm's weight, for entries of unit vectors."""
        gain: Doubles = self._weight(name) * np.sqrt(self.config.hidden)
        return gain

    def _unit(self, x: Doubles) -> Doubles:
        """x / sqrt(sum of squares + n epsilon)."""
        squares = (x**2).sum(axis=-1, keepdims=True) + self.config.hidden * self.config.epsilon
        unit: Doubles = x / np.sqrt(squares)
        return unit

    def _attention(self, layer: int, x: Doubles) -> Doubles:
        c, length = self.config, len(x)
        normed = self._unit(x) * self._gain(f"{layer}.norm1")
        q, k, v = (self._see(f"{layer}.{name}", normed @ self._weight(f"{layer}.{name}").T) for name in "qkv")
        heads = [part.reshape(length, -1, c.head_dim) for part in (q, k, v)]
        q, k = (
            self._see(f"{layer}.{name}.rotated", self._rotate(part)) for name, part in zip("qk", heads, strict=False)
        )
        k, v = (np.repeat(part, c.heads // c.kv_heads, axis=1) for part in (k, heads[2]))
        scores = self._see(f"{layer}.scores", np.einsum("thd,shd->hts", q, k) / np.sqrt(c.head_dim))
        scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = np.einsum("hts,shd->thd", weights / weights.sum(axis=-1, keepdims=True), v)
        return self._see(f"{layer}.mixed", mixed.reshape(length, -1)) @ self._weight(f"{layer}.o").T

    def _rotate(self, x: Doubles) -> Doubles:
        cos, sin = (part[:, None] for part in rotations(self.config, len(x)))
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def _mlp(self, layer: int, x: Doubles) -> Doubles:
        normed = self._unit(x) * self._gain(f"{layer}.norm2")
        gate = self._see(f"{layer}.gate", normed @ self._weight(f"{layer}.gate").T)
        up = self._see(f"{layer}.up", normed @ self._weight(f"{layer}.up").T)
        product = self._see(f"{layer}.product", self._see(f"{layer}.silu", silu(gate)) * up)
        added: Doubles = product @ self._weight(f"{layer}.down").T
        return added
