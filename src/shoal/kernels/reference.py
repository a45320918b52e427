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
    weights = probabilities(q, k, scale, window, softcap)
    wide_v = np.repeat(np.asarray(v, np.float64), q.shape[1] // v.shape[1], axis=1)
    mixed: np.ndarray = np.einsum("hrk,khd->rhd", weights, wide_v)
    return mixed


def probabilities(
    q: np.ndarray, k: np.ndarray, scale: float, window: int | None = None, softcap: float = 0.0
) -> np.ndarray:
    """What `attention` weighs values with: float64 (heads, rows, keys)."""
    rows, heads, _ = q.shape
    keys, kv_heads, _ = k.shape
    wide_k = np.repeat(np.asarray(k, np.float64), heads // kv_heads, axis=1)
    scores = np.einsum("rhd,khd->hrk", np.asarray(q, np.float64), wide_k) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = np.where(_visible(rows, keys, window), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    normalised: np.ndarray = weights / weights.sum(axis=-1, keepdims=True)
    return normalised


def importance(weights: np.ndarray, kv_heads: int, row_weights: np.ndarray, is_mean: bool) -> np.ndarray:
    """How much rows attend to each key, per KV head: float64 (kv_heads, keys). weights: (heads, rows, keys)."""
    heads, rows, keys = weights.shape
    each = (weights * row_weights[:, None]).reshape(kv_heads, heads // kv_heads * rows, keys)
    return np.asarray(each.mean(axis=1) if is_mean else each.max(axis=1))


def _visible(rows: int, keys: int, window: int | None) -> np.ndarray:
    """bool (rows, keys): key at or before the row's own position, and inside its window."""
    position = np.arange(keys - rows, keys)[:, None]
    key = np.arange(keys)[None, :]
    oldest = -1 if window is None else position - window
    return np.asarray((key <= position) & (key > oldest))
