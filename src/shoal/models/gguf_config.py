"""GGUF metadata to `ModelConfig`, for the architectures Shoal computes. Keys are those of ggml's `gguf.md`.

Where a key is absent the meaning is llama.cpp's (`llama-model.cpp`, `load_hparams`), since that is what the file was
converted for. A key that would change the result and is not computed here is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import replace

from shoal.models.config import Family, ModelConfig, Rope
from shoal.models.fields import MAX_LAYERS, Fields
from shoal.models.gguf import GgufFile
from shoal.models.tensors import Tensor

FAMILIES: dict[str, Family] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3moe",
                               "gemma2": "gemma2", "gemma3": "gemma3"}  # fmt: skip
"""`general.architecture` to family; "llama" with experts is Mixtral."""

ROPE_FACTORS = "rope_freqs.weight"

_REFUSED = ("expert_shared_count", "expert_group_count", "attention.max_alibi_bias", "attention.clamp_kqv",
            "attention.q_lora_rank", "attention.kv_lora_rank", "logit_scale", "residual_scale", "embedding_scale",
            "attention.temperature_length", "attention.shared_kv_layers", "nextn_predict_layers",
            "rope.scaling.yarn_log_multiplier", "moe_every_n_layers", "leading_dense_block_count",
            "use_parallel_residual", "attention.output_scale", "router_logit_softcapping")  # fmt: skip
"""Keys of other architectures: anything but 0 or false would change the result."""


def gguf_config(file: GgufFile) -> ModelConfig:
    """BadWeights for an unknown architecture (listing those supported), a missing key or an unusable value."""
    general = Fields(str(file.path), file.metadata, "general.")
    architecture = general.text("architecture")
    if architecture not in FAMILIES:
        general.fail("architecture", f"one of {', '.join(FAMILIES)}", architecture)
    Fields(str(file.path), file.metadata).must_be("split.count", (0, 1), "join the parts with gguf-split --merge")
    fields = Fields(str(file.path), file.metadata, f"{architecture}.")
    for name in _REFUSED:
        fields.must_be(name, (0, 0.0, 1.0, False) if name.endswith("_scale") else (0, 0.0, False))
    fields.must_be("attention.causal", (True,))
    fields.must_be("expert_gating_func", (0, 1))
    fields.must_be("expert_weights_scale", (0.0, 1.0))
    plain = _plain_config(fields, file, FAMILIES[architecture])
    return _with_experts(fields, plain) if plain.num_experts else plain


def _plain_config(fields: Fields, file: GgufFile, family: Family) -> ModelConfig:
    hidden, layers = fields.integer("embedding_length"), fields.integer("block_count", most=MAX_LAYERS)
    heads = _same_everywhere(fields, "attention.head_count", layers)
    head_dim = fields.integer("attention.key_length", max(hidden // heads, 1))
    fields.must_be("attention.value_length", (head_dim,), "keys and values have the same length")
    is_gemma = family in ("gemma2", "gemma3")
    windows = _windows(fields, family, layers)
    ropes = _ropes(fields, file, family, head_dim)
    return ModelConfig(
        family="mixtral" if family == "llama" and fields.get("expert_count") else family,
        vocab_size=_vocabulary(fields, file),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=_same_everywhere(fields, "attention.head_count_kv", layers, heads),
        head_dim=head_dim,
        ffn_size=_same_everywhere(fields, "feed_forward_length", layers),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        context_length=fields.integer("context_length"),
        rope_kinds=ropes,
        ropes=tuple(int(len(ropes) > 1 and window is not None) for window in windows),
        windows=windows,
        query_scale=_query_scale(fields, family, hidden, heads, head_dim),
        activation="gelu_tanh" if is_gemma else "silu",
        attn_softcap=fields.cap("attn_logit_softcapping", 50.0 if family == "gemma2" else 0.0) if is_gemma else 0.0,
        logit_softcap=fields.cap("final_logit_softcapping", 30.0 if family == "gemma2" else 0.0) if is_gemma else 0.0,
        embed_scale=math.sqrt(hidden) if is_gemma else 1.0,
        is_tied="output.weight" not in file.tensors,
        has_qkv_bias=not is_gemma and "blk.0.attn_q.bias" in file.tensors,
        has_qk_norm=family in ("qwen3", "qwen3moe", "gemma3"),
        num_experts=fields.integer("expert_count", 0, least=0, most=65_536),
    )


def _with_experts(fields: Fields, plain: ModelConfig) -> ModelConfig:
    if plain.family not in ("mixtral", "qwen3moe"):
        fields.fail("expert_count", f"0 for {plain.family}", plain.num_experts)
    return replace(
        plain,
        experts_per_token=fields.integer("expert_used_count", most=plain.num_experts),
        expert_ffn_size=fields.integer("expert_feed_forward_length", plain.ffn_size),
        renormalize_experts=fields.flag("expert_weights_norm", True),
    )


def _same_everywhere(fields: Fields, name: str, layers: int, default: int | None = None) -> int:
    """Some converters write one value per layer; only equal ones make sense to these families."""
    value = fields.get(name)
    if not isinstance(value, list):
        return fields.integer(name, default)
    if len(value) != layers or len(set(map(str, value))) != 1:
        fields.fail(name, f"one value for all {layers} layers", value)
    return Fields(fields.file, {fields.prefix + name: value[0]}, fields.prefix).integer(name)


def _vocabulary(fields: Fields, file: GgufFile) -> int:
    """Rows of the embedding: what can be looked up, whatever `vocab_size` says."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        fields.fail("vocab_size", "a matrix token_embd.weight", embedding and embedding.shape)
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > embedding.shape[0]:
        fields.fail("vocab_size", f"at most {embedding.shape[0]} tokens, the rows of token_embd.weight", len(tokens))
    return embedding.shape[0]


def _query_scale(fields: Fields, family: Family, hidden: int, heads: int, head_dim: int) -> float:
    """llama.cpp knows Gemma's 27B models, whose scale is not 1/sqrt(head_dim), by their number of layers."""
    layers = fields.integer("block_count")
    default = head_dim**-0.5
    if (family, layers) in (("gemma2", 46), ("gemma3", 62)):
        default = (hidden // heads) ** -0.5
    return fields.number("attention.scale", default) if fields.get("attention.scale") else default


def _windows(fields: Fields, family: Family, layers: int) -> tuple[int | None, ...]:
    window = fields.integer("attention.sliding_window", 4096 if family == "gemma2" else 0, least=0)
    if not window:
        return (None,) * layers
    if family not in ("llama", "gemma2", "gemma3"):
        fields.fail("attention.sliding_window", f"0 (which layers of {family} it is for is not said)", window)
    pattern = fields.get("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        if len(pattern) != layers or not all(type(is_local) is bool for is_local in pattern):
            fields.fail("attention.sliding_window_pattern", f"{layers} booleans", pattern)
        return tuple(window if is_local else None for is_local in pattern)
    default = {"gemma2": 2, "gemma3": 6}.get(family, 0)  # every n-th layer sees everything; 0: none does
    period = fields.integer("attention.sliding_window_pattern", default, least=0)
    return tuple(None if period and (layer + 1) % period == 0 else window for layer in range(layers))


def _ropes(fields: Fields, file: GgufFile, family: Family, head_dim: int) -> tuple[Rope, ...]:
    """One rope for all layers, or Gemma 3's two: global, local."""
    dims = fields.integer("rope.dimension_count", head_dim, most=head_dim)
    if dims % 2 or (dims != head_dim and family == "llama"):
        fields.fail("rope.dimension_count", "an even number" if dims % 2 else f"{head_dim}, the whole head", dims)
    base = Rope(theta=fields.number("rope.freq_base", 10_000.0, above=1.0), dims=dims)
    scaled = _scaled(fields, base, file.tensors.get(ROPE_FACTORS))
    if family == "gemma3" and fields.get("attention.sliding_window"):
        return scaled, Rope(theta=fields.number("rope.freq_base_swa", 10_000.0, above=1.0), dims=dims)
    fields.must_be("rope.freq_base_swa", (base.theta,))
    return (scaled,)


def _scaled(fields: Fields, base: Rope, factors: Tensor | None) -> Rope:
    kind = fields.text("rope.scaling.type", "linear")
    factor = fields.get("rope.scaling.factor") or fields.get("rope.scale_linear") or 1.0
    if kind not in ("none", "linear", "yarn"):
        fields.fail("rope.scaling.type", "none, linear or yarn", kind)
    if type(factor) is not float or not 0 < factor < math.inf:
        fields.fail("rope.scaling.factor", "a positive number", factor)
    is_scaled = kind != "none" and factor != 1.0
    if factors is not None:
        if is_scaled:
            fields.fail("rope.scaling.factor", f"1.0 beside {ROPE_FACTORS}", factor)
        return replace(base, scaling="factors", factors=_factors(fields, base, factors))
    if not is_scaled:
        return base
    return _yarn(fields, base, factor) if kind == "yarn" else replace(base, scaling="linear", factor=factor)


def _yarn(fields: Fields, base: Rope, factor: float) -> Rope:
    fields.must_be("rope.scaling.yarn_ext_factor", (1.0,))
    fields.must_be("rope.scaling.yarn_attn_factor", (1.0,))
    own = fields.number("rope.scaling.attn_factor", 1.0)
    return replace(
        base,
        scaling="yarn",
        factor=factor,
        original_context=fields.integer("rope.scaling.original_context_length", fields.integer("context_length")),
        beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=None if own == 1.0 else own * (0.1 * math.log(max(factor, 1.0)) + 1.0),
    )


def _factors(fields: Fields, base: Rope, tensor: Tensor) -> tuple[float, ...]:
    """Divisors of each pair's frequency: Llama 3.1's scaling as llama.cpp's converter writes it."""
    if tensor.storage != "F32" or tensor.shape != (base.dims // 2,):
        fields.fail(ROPE_FACTORS, f"F32 ({base.dims // 2},)", f"{tensor.storage} {tensor.shape}")
    values = tuple(float(value) for value in tensor.data.view("<f4")[0])
    if not all(0 < value < math.inf for value in values):
        fields.fail(ROPE_FACTORS, "positive numbers", values)
    return values
