"""Shapes of a Llama-like model and the names of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.core.errors import BadConfig

Floats = npt.NDArray[np.floating]
Weights = Mapping[str, Floats]
"""embedding (vocab, hidden); norm (hidden); for layer i: i.norm1, i.norm2 (hidden), i.q, i.k, i.v, i.o, i.gate, i.up,
i.down, all (out, in). Heads are rotated as halves: entry j with entry j + head_dim / 2. The output projection is the
embedding, unless there is `output` (vocab, hidden)."""


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    rope_theta: float = 10_000.0
    epsilon: float = 1e-5

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight but `output`."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, self.hidden), "norm": (self.hidden,)}
        for layer in range(self.layers):
            shapes |= {
                f"{layer}.norm1": (self.hidden,),
                f"{layer}.q": (wide, self.hidden),
                f"{layer}.k": (narrow, self.hidden),
                f"{layer}.v": (narrow, self.hidden),
                f"{layer}.o": (self.hidden, wide),
                f"{layer}.norm2": (self.hidden,),
                f"{layer}.gate": (self.inner, self.hidden),
                f"{layer}.up": (self.inner, self.hidden),
                f"{layer}.down": (self.hidden, self.inner),
            }
        return shapes

    def check(self, weights: Weights) -> None:
        """BadConfig for a weight that is missing or of another shape."""
        for name, shape in self.shapes().items():
            found = weights[name].shape if name in weights else None
            if found != shape:
                raise BadConfig(name, f"expected weights of shape {shape}, found {found}")


def rotations(config: TransformerConfig, length: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """cos and sin of every position and frequency, (length, head_dim / 2)."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half) / half)
    angles = np.outer(np.arange(length), frequencies)
    return np.cos(angles), np.sin(angles)
