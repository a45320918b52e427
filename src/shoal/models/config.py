"""What a network looks like: one frozen record, filled from GGUF metadata or config.json, read by every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["llama", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral", "qwen3moe"]


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding, half-split ("neox") layout: dimension i pairs with i + rot/2.

    theta        base frequency.
    dims         leading dimensions of each head that rotate.
    scaling      "none", "linear" (factor), "llama3" (factor, low, high, original context), "yarn" (factor,
                 original context, beta_fast, beta_slow, attention factor), or "factors" (explicit divisors per pair,
                 as in GGUF `rope_freqs.weight`).
    """

    theta: float = 10_000.0
    dims: int = 0
    scaling: Literal["none", "linear", "llama3", "yarn", "factors"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Layers [first, last) of a network, with its embedding in front or its head behind, or neither.

    Without the embedding its input is the residual stream; without the head its output is.
    """

    first: int
    last: int
    has_embedding: bool = False
    has_head: bool = False


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Dimensions are counts of elements. Per-layer tuples have `num_layers` entries.

    windows        sliding-window length of each layer (keys a query sees, itself included), None: all.
    ropes          index into `rope_kinds` of each layer (Gemma 3 has a local and a global one).
    query_scale    what q.k is multiplied by.
    attn_softcap, logit_softcap  x -> cap * tanh(x / cap), 0: none.
    embed_scale    what token embeddings are multiplied by.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    norm_eps: float
    context_length: int
    rope_kinds: tuple[Rope, ...]
    ropes: tuple[int, ...]
    windows: tuple[int | None, ...]
    query_scale: float
    activation: Literal["silu", "gelu_tanh"] = "silu"
    attn_softcap: float = 0.0
    logit_softcap: float = 0.0
    embed_scale: float = 1.0
    is_tied: bool = False
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    num_experts: int = 0
    experts_per_token: int = 0
    expert_ffn_size: int = 0
    renormalize_experts: bool = True
