"""Gaussian noise on hidden states before they leave: what it costs answers and attackers is in private-splits.md."""

from __future__ import annotations

import secrets

import numpy as np


class Noise:
    """`strength` times the root mean square of each row, drawn anew every time from the system's randomness."""

    def __init__(self, strength: float, seed: int | None = None) -> None:
        self._strength = strength
        self._random = np.random.default_rng(secrets.randbits(128) if seed is None else seed)

    def add(self, stream: np.ndarray) -> np.ndarray:
        """float32 (rows, hidden)."""
        scale = self._strength * np.sqrt(np.mean(np.square(stream), axis=1, keepdims=True))
        drawn = self._random.standard_normal(stream.shape, dtype=np.float32)
        return np.asarray(stream + scale * drawn, np.float32)
