"""Slow twins in plain numpy, float64, one sequence at a time: what the fast kernels are tested against."""

from __future__ import annotations

import numpy as np


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, window: int | None = None, softcap: float = 0.0
) -> np.ndarray:
    """Causal grouped-query attention over one contiguous sequence.

    q     (rows, heads, head_dim): the last `rows` positions of the sequence.
    k, v  (keys, kv_heads, head_dim): every position, in order; kv_heads divides heads.
    Returns float64 (rows, heads, head_dim). `window` counts the keys a row sees, itself included.
    """
    rows, heads, _ = q.shape
    keys, kv_heads, _ = k.shape
    wide_k, wide_v = (np.repeat(np.asarray(x, np.float64), heads // kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("rhd,khd->hrk", np.asarray(q, np.float64), wide_k) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = np.where(_visible(rows, keys, window), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: np.ndarray = np.einsum("hrk,khd->rhd", weights, wide_v)
    return mixed


def _visible(rows: int, keys: int, window: int | None) -> np.ndarray:
    """bool (rows, keys): key at or before the row's own position, and inside its window."""
    position = np.arange(keys - rows, keys)[:, None]
    key = np.arange(keys)[None, :]
    oldest = -1 if window is None else position - window
    return np.asarray((key <= position) & (key > oldest))
