"""What each family's tensors are called and how large they are: GGUF's names, and Hugging Face's mapped to them.

`expected_shapes` is the one list of what a network reads; both readers check their file against it.
"""

from __future__ import annotations

import re

from shoal.models.config import Family, ModelConfig

_ATTENTION = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
}
_BIASES = {f"self_attn.{letter}_proj.bias": f"attn_{letter}.bias" for letter in "qkv"}
_QK_NORMS = {f"self_attn.{letter}_norm.weight": f"attn_{letter}_norm.weight" for letter in "qk"}
_PRE_NORM = {"post_attention_layernorm.weight": "ffn_norm.weight"}
_SANDWICH = {
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
}
_DENSE = {f"mlp.{part}_proj.weight": f"ffn_{part}.weight" for part in ("gate", "up", "down")}
_ROUTER = {"mlp.gate.weight": "ffn_gate_inp.weight"}
_OLD_ROUTER = {"block_sparse_moe.gate.weight": "ffn_gate_inp.weight"}

LAYER_NAMES: dict[Family, dict[str, str]] = {
    "llama": _ATTENTION | _PRE_NORM | _DENSE,
    "qwen2": _ATTENTION | _BIASES | _PRE_NORM | _DENSE,
    "qwen3": _ATTENTION | _QK_NORMS | _PRE_NORM | _DENSE,
    "gemma2": _ATTENTION | _SANDWICH | _DENSE,
    "gemma3": _ATTENTION | _QK_NORMS | _SANDWICH | _DENSE,
    "mixtral": _ATTENTION | _PRE_NORM | _ROUTER | _OLD_ROUTER,
    "qwen3moe": _ATTENTION | _QK_NORMS | _PRE_NORM | _ROUTER,
}
"""Hugging Face's name within `model.layers.N.` to GGUF's within `blk.N.`."""

MODEL_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}

EXPERT_NAMES = {f"mlp.experts.{{}}.{part}_proj.weight": f"ffn_{part}_exps.weight" for part in ("gate", "up", "down")}
"""One tensor per expert, to the stack of all."""

OLD_EXPERT_NAMES = {
    "block_sparse_moe.experts.{}.w1.weight": "ffn_gate_exps.weight",
    "block_sparse_moe.experts.{}.w3.weight": "ffn_up_exps.weight",
    "block_sparse_moe.experts.{}.w2.weight": "ffn_down_exps.weight",
}
"""Mixtral's own."""

FUSED_GATE_UP, FUSED_DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"
"""transformers 5 in memory: (experts, 2 * ffn, hidden), gate rows first, and (experts, hidden, ffn)."""

Shape = tuple[int, ...]


def expected_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Canonical name to shape of every tensor the network reads: no more, no fewer."""
    shapes: dict[str, Shape] = {
        "token_embd.weight": (config.vocab_size, config.hidden_size),
        "output_norm.weight": (config.hidden_size,),
    }
    if not config.is_tied:
        shapes["output.weight"] = (config.vocab_size, config.hidden_size)
    layer_shapes = _attention_shapes(config) | _norm_shapes(config) | _ffn_shapes(config)
    for layer in range(config.num_layers):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in layer_shapes.items()}
    return shapes


def _attention_shapes(config: ModelConfig) -> dict[str, Shape]:
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, Shape] = {
        "attn_q.weight": (queries, config.hidden_size),
        "attn_k.weight": (keys, config.hidden_size),
        "attn_v.weight": (keys, config.hidden_size),
        "attn_output.weight": (config.hidden_size, queries),
    }
    if config.has_qkv_bias:
        shapes |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    if config.has_qk_norm:
        shapes |= {"attn_q_norm.weight": (config.head_dim,), "attn_k_norm.weight": (config.head_dim,)}
    return shapes


def _norm_shapes(config: ModelConfig) -> dict[str, Shape]:
    names = ["attn_norm", "ffn_norm"]
    if config.family in ("gemma2", "gemma3"):
        names += ["post_attention_norm", "post_ffw_norm"]
    return {f"{name}.weight": (config.hidden_size,) for name in names}


def _ffn_shapes(config: ModelConfig) -> dict[str, Shape]:
    hidden, experts = config.hidden_size, config.num_experts
    if not experts:
        wide, narrow = (config.ffn_size, hidden), (hidden, config.ffn_size)
        return {"ffn_gate.weight": wide, "ffn_up.weight": wide, "ffn_down.weight": narrow}
    stacked, flat = (experts, config.expert_ffn_size, hidden), (experts, hidden, config.expert_ffn_size)
    return {
        "ffn_gate_inp.weight": (experts, hidden),
        "ffn_gate_exps.weight": stacked,
        "ffn_up_exps.weight": stacked,
        "ffn_down_exps.weight": flat,
    }


# ---- Hugging Face's names --------------------------------------------------------------------------------------

_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,4})\.(.+)")
_EXPERT = re.compile(r"(.+\.experts)\.(0|[1-9][0-9]{0,5})\.(.+)")
_IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
_VISION = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..+")
_TEXT = re.compile(r"(?:model\.language_model|language_model\.model)\.(.+)")


def is_ignored(name: str, is_tied: bool) -> bool:
    """Tensors that do not change the answer to text: rotary buffers (recomputed), a tied head, a vision tower."""
    is_tied_head = is_tied and text_name(name) == "lm_head.weight"
    return is_tied_head or bool(_IGNORED.fullmatch(name) or _VISION.fullmatch(name))


def text_name(name: str) -> str:
    """The name it would have without the vision model around it."""
    match = _TEXT.fullmatch(name)
    return f"model.{match[1]}" if match else name.removeprefix("language_model.")


def canonical_name(family: Family, name: str) -> tuple[str, int | None] | None:
    """(GGUF's name, expert number or None) for Hugging Face's name; None for one this family does not have.

    Fused expert tensors keep their own last part: `blk.0.mlp.experts.gate_up_proj`.
    """
    name = text_name(name)
    if name in MODEL_NAMES:
        return MODEL_NAMES[name], None
    match = _LAYER.fullmatch(name)
    if match is None:
        return None
    block, suffix = f"blk.{match[1]}.", match[2]
    if suffix in LAYER_NAMES[family]:
        return block + LAYER_NAMES[family][suffix], None
    return _expert_name(family, block, suffix) if family in ("mixtral", "qwen3moe") else None


def _expert_name(family: Family, block: str, suffix: str) -> tuple[str, int | None] | None:
    if suffix in (FUSED_GATE_UP, FUSED_DOWN):
        return block + suffix, None
    match = _EXPERT.fullmatch(suffix)
    if match is None:
        return None
    names = EXPERT_NAMES | OLD_EXPERT_NAMES if family == "mixtral" else EXPERT_NAMES
    canonical = names.get(f"{match[1]}.{{}}.{match[3]}")
    return (block + canonical, int(match[2])) if canonical else None
