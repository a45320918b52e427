"""Rotary embeddings and sliding windows out of config.json, in both shapes it comes in.

transformers 5 writes `rope_parameters` (nested by layer type for Gemma 3), transformers 4 wrote `rope_theta`,
`rope_scaling` and, for Gemma 3, `rope_local_base_freq`. Meanings are those of `transformers.modeling_rope_utils`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shoal.models.config import Family, Rope
from shoal.models.fields import Fields

Windows = tuple[int | None, ...]

_KNOWN = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "low_freq_factor", "high_freq_factor",
          "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
          "mscale_all_dim", "truncate", "finetuned"}  # fmt: skip
_SPECIAL = ("full_attention", "sliding_attention")


def read_ropes(fields: Fields, family: Family, head_dim: int, theta: float) -> tuple[Rope, ...]:
    """One rope for all layers, or Gemma 3's two: global, local. `theta` is the family's default base frequency."""
    parameters, scaling = _mapping(fields, "rope_parameters"), _mapping(fields, "rope_scaling")
    if family != "gemma3":
        outer = fields.number("rope_theta", theta, above=1.0)
        return (_rope(fields, scaling or parameters, head_dim, outer),)
    if parameters and not set(parameters) <= set(_SPECIAL):
        fields.fail("rope_parameters", f"one entry for each of {' and '.join(_SPECIAL)}", sorted(parameters))
    nested = Fields(fields.file, parameters)
    full = {**_mapping(nested, "full_attention"), **scaling}
    return (
        _rope(fields, full, head_dim, fields.number("rope_theta", 1_000_000.0, above=1.0)),
        _rope(
            fields,
            _mapping(nested, "sliding_attention"),
            head_dim,
            fields.number("rope_local_base_freq", 10_000.0, above=1.0),
        ),
    )


def _mapping(fields: Fields, name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        fields.fail(name, "an object", value)
    return value or {}


def _rope(outer: Fields, values: Mapping[str, Any], head_dim: int, theta: float) -> Rope:
    prefix = f"{outer.prefix}rope_parameters."
    fields = Fields(outer.file, {prefix + name: value for name, value in values.items()}, prefix)
    for name in sorted(set(values) - _KNOWN):
        fields.fail(name, f"one of {', '.join(sorted(_KNOWN))}", values[name])
    outer.must_be("partial_rotary_factor", (1, 1.0))
    fields.must_be("partial_rotary_factor", (1, 1.0))
    theta = fields.number("rope_theta", theta, above=1.0)
    kind = fields.text("rope_type", fields.text("type", "default"))
    context = outer.integer("max_position_embeddings")
    match kind:
        case "default":
            return Rope(theta, head_dim)
        case "linear":
            return Rope(theta, head_dim, "linear", factor=fields.number("factor"))
        case "llama3":
            return _llama3(fields, Rope(theta, head_dim, "llama3"), _original(outer, fields, context))
        case "yarn":
            return _yarn(fields, Rope(theta, head_dim, "yarn"), _original(outer, fields, context), context)
        case _:
            return fields.fail("rope_type", "default, linear, llama3 or yarn", kind)


def _original(outer: Fields, fields: Fields, context: int) -> int:
    """Context of pre-training. Beside the rope parameters, where it is there, it counts more than inside."""
    inside = fields.integer("original_max_position_embeddings", context)
    return outer.integer("original_max_position_embeddings", inside)


def _llama3(fields: Fields, rope: Rope, original: int) -> Rope:
    low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
    if high <= low:
        fields.fail("high_freq_factor", f"more than low_freq_factor, {low}", high)
    return Rope(
        rope.theta, rope.dims, "llama3", fields.number("factor"),
        low_freq_factor=low, high_freq_factor=high, original_context=original,
    )  # fmt: skip


def _yarn(fields: Fields, rope: Rope, original: int, context: int) -> Rope:
    fields.must_be("truncate", (True,))
    factor = fields.number("factor", context / original)
    return Rope(
        rope.theta, rope.dims, "yarn", factor,
        original_context=original,
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        attention_factor=_attention_factor(fields, factor),
    )  # fmt: skip


def _attention_factor(fields: Fields, factor: float) -> float | None:
    if fields.get("attention_factor") is not None:
        return fields.number("attention_factor")
    if fields.get("mscale") and fields.get("mscale_all_dim"):
        growth = 0.1 * math.log(max(factor, 1.0))
        return (fields.number("mscale") * growth + 1.0) / (fields.number("mscale_all_dim") * growth + 1.0)
    return None


# ---- sliding windows -------------------------------------------------------------------------------------------


def read_windows(fields: Fields, architecture: str, layers: int) -> Windows:
    """Each layer's window, or None where it sees everything."""
    match architecture:
        case "LlamaForCausalLM":
            return (None,) * layers
        case "MistralForCausalLM" | "MixtralForCausalLM" | "Qwen3MoeForCausalLM":
            return _uniform_windows(fields, architecture, layers)
        case "Qwen2ForCausalLM" | "Qwen3ForCausalLM":
            window = fields.get("sliding_window") if fields.flag("use_sliding_window", False) else None
            first = fields.integer("max_window_layers", 28, least=0)
            default = [window is not None and layer >= first for layer in range(layers)]
        case "Gemma2ForCausalLM":
            window, default = fields.integer("sliding_window", 4096), [layer % 2 == 0 for layer in range(layers)]
        case _:
            period = fields.integer("sliding_window_pattern", 6)
            window, default = fields.integer("sliding_window", 4096), [(i + 1) % period != 0 for i in range(layers)]
    is_local = _layer_types(fields, layers) or default
    if window is None and any(is_local):
        fields.fail("sliding_window", "a length, since layer_types has sliding_attention", window)
    return tuple(fields.integer("sliding_window", 4096) if local else None for local in is_local)


def _uniform_windows(fields: Fields, architecture: str, layers: int) -> Windows:
    if fields.get("sliding_window") is None:
        return (None,) * layers
    if architecture == "Qwen3MoeForCausalLM" and not fields.flag("use_sliding_window", False):
        return (None,) * layers
    fields.must_be("layer_types", (), "beside sliding_window, which this architecture uses in every layer")
    return (fields.integer("sliding_window"),) * layers


def _layer_types(fields: Fields, layers: int) -> list[bool] | None:
    """For each layer, is it local? None where the file does not say."""
    kinds = fields.get("layer_types")
    if kinds is None:
        return None
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in _SPECIAL for kind in kinds):
        fields.fail("layer_types", f"{layers} times full_attention or sliding_attention", kinds)
    return [kind == "sliding_attention" for kind in kinds]
