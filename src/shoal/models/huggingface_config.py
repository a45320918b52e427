"""config.json to `ModelConfig`, for the architectures Shoal computes, with the meaning transformers gives each field.

Fields fall in three groups: read, checked (`_CHECKED`: only the value that is computed here passes, others are refused
by name) and without effect on the answer (`NO_EFFECT`). Defaults are those of transformers' configuration classes,
because files written by transformers leave some out. Fields a class does not know have no effect there or here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shoal.models.config import Family, ModelConfig
from shoal.models.fields import MAX_LAYERS, Fields
from shoal.models.huggingface_rope import read_ropes, read_windows


@dataclass(frozen=True, slots=True)
class Architecture:
    """A transformers class: its family, and its defaults for fields a file may leave out."""

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None
    head_dim: int | None
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    theta: float = 10_000.0
    experts: tuple[int, int, int] = (0, 0, 0)
    """Number, used per token, and their intermediate size (0: `intermediate_size`)."""


_GEMMA3 = Architecture("gemma3", 262_208, 2304, 9216, 26, 8, 4, 256, 131_072, tie_word_embeddings=True,
                       theta=1_000_000.0)  # fmt: skip

ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", 32_000, 4096, 11_008, 32, 32, None, None, 2048),
    "MistralForCausalLM": Architecture("llama", 32_000, 4096, 14_336, 32, 32, 8, None, 131_072),
    "Qwen2ForCausalLM": Architecture("qwen2", 151_936, 4096, 22_016, 32, 32, 32, None, 32_768),
    "Qwen3ForCausalLM": Architecture("qwen3", 151_936, 4096, 22_016, 32, 32, 32, 128, 32_768),
    "Gemma2ForCausalLM": Architecture(
        "gemma2", 256_000, 2304, 9216, 26, 8, 4, 256, 8192, tie_word_embeddings=True
    ),
    "Gemma3ForCausalLM": _GEMMA3,
    "Gemma3ForConditionalGeneration": _GEMMA3,
    "MixtralForCausalLM": Architecture(
        "mixtral", 32_000, 4096, 14_336, 32, 32, 8, None, 131_072, 1e-5, theta=1_000_000.0, experts=(8, 2, 0)
    ),
    "Qwen3MoeForCausalLM": Architecture(
        "qwen3moe", 151_936, 2048, 6144, 24, 32, 4, None, 32_768, experts=(128, 8, 768)
    ),
}  # fmt: skip

_CHECKED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,), "mlp_bias": (False,), "use_bidirectional_attention": (False,),
    "quantization_config": (), "decoder_sparse_step": (1,), "mlp_only_layers": ([],),
}  # fmt: skip

NO_EFFECT = {"initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "attention_dropout",
             "pretraining_tp", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise"}  # fmt: skip
"""Training, caching and token ids (the tokenizer's business)."""

KNOWN = NO_EFFECT | set(_CHECKED) | {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
    "hidden_act", "hidden_activation", "rope_parameters", "sliding_window", "use_sliding_window",
    "max_window_layers", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping",
    "final_logit_softcapping", "num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size",
    "norm_topk_prob",
}  # fmt: skip
"""Every field of the supported classes that this reader has an answer to; a test compares it with transformers."""


def huggingface_config(file: str, values: Mapping[str, Any]) -> tuple[ModelConfig, str]:
    """(config, architecture name). BadWeights for an unknown architecture, a missing field or an unusable value."""
    top = Fields(file, values)
    name = _architecture(top)
    top.must_be("quantization_config", (), "weights are F32, F16 or BF16; pull a GGUF file for quantised ones")
    fields = _text_fields(top) if name == "Gemma3ForConditionalGeneration" else top
    for field, allowed in _CHECKED.items():
        fields.must_be(field, allowed)
    is_gemma = ARCHITECTURES[name].family in ("gemma2", "gemma3")
    if is_gemma:
        fields.must_be("hidden_activation", ("gelu_pytorch_tanh",))
    else:
        fields.must_be("hidden_act", ("silu", "swish"))
    config = _plain_config(fields, name)
    if is_gemma:
        return _with_gemma(fields, config), name
    return (_with_experts(fields, config, ARCHITECTURES[name]) if ARCHITECTURES[name].experts[0] else config), name


def _architecture(top: Fields) -> str:
    names = top.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or names[0] not in ARCHITECTURES:
        top.fail("architectures", f"one of {', '.join(ARCHITECTURES)}", names)
    return str(names[0])


def _text_fields(top: Fields) -> Fields:
    """The language model's part of a vision-language model's configuration."""
    text = top.get("text_config")
    if not isinstance(text, dict):
        top.fail("text_config", "an object", text)
    return Fields(top.file, {f"text_config.{name}": value for name, value in text.items()}, "text_config.")


def _plain_config(fields: Fields, name: str) -> ModelConfig:
    kind = ARCHITECTURES[name]
    hidden = fields.integer("hidden_size", kind.hidden_size)
    layers = fields.integer("num_hidden_layers", kind.num_hidden_layers, most=MAX_LAYERS)
    heads = fields.integer("num_attention_heads", kind.num_attention_heads)
    head_dim = fields.integer("head_dim", kind.head_dim or max(hidden // heads, 1))
    context = fields.integer("max_position_embeddings", kind.max_position_embeddings)
    known = Fields(fields.file, {**fields.values, f"{fields.prefix}max_position_embeddings": context}, fields.prefix)
    windows = read_windows(fields, name, layers)
    ropes = read_ropes(known, kind.family, head_dim, kind.theta)
    return ModelConfig(
        family=kind.family,
        vocab_size=fields.integer("vocab_size", kind.vocab_size),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=_kv_heads(fields, kind, heads),
        head_dim=head_dim,
        ffn_size=fields.integer("intermediate_size", kind.intermediate_size),
        norm_eps=fields.number("rms_norm_eps", kind.rms_norm_eps),
        context_length=context,
        rope_kinds=ropes,
        ropes=tuple(int(len(ropes) > 1 and window is not None) for window in windows),
        windows=windows,
        query_scale=head_dim**-0.5,
        is_tied=fields.flag("tie_word_embeddings", kind.tie_word_embeddings),
        has_qkv_bias=kind.family == "qwen2",
        has_qk_norm=kind.family in ("qwen3", "qwen3moe", "gemma3"),
    )


def _kv_heads(fields: Fields, kind: Architecture, heads: int) -> int:
    """Absent: the class's default. Null, or no default: as many as there are query heads."""
    is_null = f"{fields.prefix}num_key_value_heads" in fields.values
    return fields.integer("num_key_value_heads", heads if is_null else kind.num_key_value_heads or heads)


def _with_gemma(fields: Fields, plain: ModelConfig) -> ModelConfig:
    is_second = plain.family == "gemma2"
    return replace(
        plain,
        query_scale=fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
        activation="gelu_tanh",
        attn_softcap=fields.cap("attn_logit_softcapping", 50.0 if is_second else 0.0),
        logit_softcap=fields.cap("final_logit_softcapping", 30.0 if is_second else 0.0),
        embed_scale=math.sqrt(plain.hidden_size),
    )


def _with_experts(fields: Fields, plain: ModelConfig, kind: Architecture) -> ModelConfig:
    number, per_token, size = kind.experts
    experts = fields.integer("num_local_experts", fields.integer("num_experts", number, most=65_536), most=65_536)
    is_mixtral = plain.family == "mixtral"
    return replace(
        plain,
        num_experts=experts,
        experts_per_token=fields.integer("num_experts_per_tok", per_token, most=experts),
        expert_ffn_size=plain.ffn_size if is_mixtral else fields.integer("moe_intermediate_size", size),
        renormalize_experts=is_mixtral or fields.flag("norm_topk_prob", False),
    )
