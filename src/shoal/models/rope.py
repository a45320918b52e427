"""Angles of rotary position embedding: one frequency per pair of dimensions, for every way of stretching the context.

Shared by both speakers, so that they cannot disagree. Position p turns pair i by p * inv_freq[i]; cosines and sines are
multiplied by the attention scale (only YaRN's differs from 1).

Sources: 2104.09864 (RoPE), 2309.00071 (YaRN), Llama 3.1's reference implementation ("llama3").
"""

from __future__ import annotations

import math

import numpy as np

from shoal.core.errors import BadConfig
from shoal.models.config import Rope


def rope_frequencies(rope: Rope, head_dim: int) -> tuple[np.ndarray, float]:
    """(inv_freq float64 (dims / 2,), attention scale). `rope.dims` 0 means the whole head.

    BadConfig for dimensions that cannot be paired and for factors of the wrong number.
    """
    dims = rope.dims or head_dim
    if dims % 2 or not 0 < dims <= head_dim:
        raise BadConfig("rope.dims", f"expected an even number up to the head's {head_dim}, found {dims}")
    plain = rope.theta ** (-np.arange(0, dims, 2, dtype=np.float64) / dims)
    match rope.scaling:
        case "none":
            return plain, 1.0
        case "linear":
            return plain / rope.factor, 1.0
        case "llama3":
            return _llama3(plain, rope), 1.0
        case "yarn":
            return _yarn(plain, rope, dims), _yarn_scale(rope)
        case "factors":
            return plain / _explicit(rope, dims), rope.attention_factor or 1.0


def rope_tables(rope: Rope, head_dim: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin), each float32 (positions, dims / 2), attention scale applied."""
    inv_freq, scale = rope_frequencies(rope, head_dim)
    angles = positions.astype(np.float64)[:, None] * inv_freq
    return (np.cos(angles) * scale).astype(np.float32), (np.sin(angles) * scale).astype(np.float32)


def _llama3(plain: np.ndarray, rope: Rope) -> np.ndarray:
    """Long wavelengths are divided by the factor, short ones kept, the band between interpolated."""
    turns = rope.original_context * plain / (2 * math.pi)  # full turns within the original context
    keep = np.clip((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0)
    return plain * (keep + (1.0 - keep) / rope.factor)


def _yarn(plain: np.ndarray, rope: Rope, dims: int) -> np.ndarray:
    """NTK-by-parts: pairs that turn more than beta_fast times are kept, fewer than beta_slow divided (section 3.2)."""
    low = max(math.floor(_pair_with_turns(rope.beta_fast, rope, dims)), 0)
    high = min(math.ceil(_pair_with_turns(rope.beta_slow, rope, dims)), dims - 1)
    ramp = np.clip((np.arange(dims // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)
    return plain * (1.0 - ramp) + plain / rope.factor * ramp


def _pair_with_turns(turns: float, rope: Rope, dims: int) -> float:
    """Index of the (fractional) pair that makes `turns` full turns within the original context."""
    return dims * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))


def _yarn_scale(rope: Rope) -> float:
    """Section 3.4: sqrt(1/t) = 0.1 ln(factor) + 1, unless the model brings its own."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    return 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1.0 else 1.0


def _explicit(rope: Rope, dims: int) -> np.ndarray:
    if len(rope.factors) != dims // 2:
        raise BadConfig("rope.factors", f"expected {dims // 2} divisors, one per pair, found {len(rope.factors)}")
    return np.asarray(rope.factors, np.float64)
