"""PEFT folders: LoRA adapters (2106.09685) as plain arrays under canonical weight names.

Reads `adapter_config.json` and `adapter_model.safetensors`. A weight W becomes W + scaling * B A. What this code does
not compute (DoRA, saved modules, biases, per-layer ranks, adapters on embeddings or experts) is refused by name, never
ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shoal.core.errors import BadWeights, Unsupported
from shoal.kernels.quant import dequantize
from shoal.models.mapped import read_json
from shoal.models.safetensors import read_safetensors
from shoal.models.tensors import Tensor

_MODULES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
            "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}  # fmt: skip

_KEY = re.compile(r"base_model\.model\.(?:model\.)?layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight")

_UNDERSTOOD = {"peft_type", "r", "lora_alpha", "use_rslora", "init_lora_weights"}

_KEEP_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the base weights alone; PiSSA, OLoRA, CorDA and LoftQ change them under the adapter."""

_HARMLESS = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",  # the tensors present say the same
    "lora_dropout", "eva_config",  # read in training only
    "megatron_core", "qalora_group_size", "ensure_weight_tying",  # read only together with a switch that is refused
}  # fmt: skip
"""Keys that change nothing about what a saved adapter computes. Any other key must be unset."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """pairs: canonical weight name -> A float32 (rank, in), B float32 (out, rank); the delta is scaling * B A."""

    rank: int
    scaling: float
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]


def read_adapter(path: str | Path) -> Adapter:
    """The adapter in a PEFT folder. BadWeights for a broken one, Unsupported for a feature it lacks here."""
    folder = Path(path)
    rank, scaling = _read_config(folder / "adapter_config.json")
    weights = folder / "adapter_model.safetensors"
    halves: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in read_safetensors(weights, lambda name: False).items():
        name, half = _canonical(key, str(weights))
        halves.setdefault(name, {})[half] = _to_float32(tensor)
    if not halves:
        raise BadWeights(str(weights), "tensors", "an adapter's", "none")
    return Adapter(rank, scaling, {name: _pair(name, found, rank, str(weights)) for name, found in halves.items()})


def _read_config(file: Path) -> tuple[int, float]:
    """(rank, scaling)."""
    config = read_json(file)
    if config.get("peft_type") != "LORA":
        raise Unsupported(f"{file}: peft_type: expected LORA, found {config.get('peft_type')}")
    for key, value in config.items():
        if key not in _UNDERSTOOD | _HARMLESS and not _is_unset(value):
            raise Unsupported(f"{file}: {key} = {value!r} is not supported; merge the adapter into its model instead")
    if (start := config.get("init_lora_weights")) not in _KEEP_BASE:
        raise Unsupported(f"{file}: init_lora_weights = {start!r} changes the base weights; save it as a plain adapter")
    rank, alpha = (_positive(config, key, str(file)) for key in ("r", "lora_alpha"))
    if rank != int(rank):
        raise BadWeights(str(file), "r", "a whole number", str(rank))
    return int(rank), alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _is_unset(value: Any) -> bool:
    return value in (None, False, "none", "") or value == {} or value == []


def _positive(config: Mapping[str, Any], key: str, file: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise BadWeights(file, key, "a positive number", repr(value))
    return float(value)


def _canonical(key: str, file: str) -> tuple[str, str]:
    """("blk.3.attn_q.weight", "A") from PEFT's name of the tensor."""
    match = _KEY.fullmatch(key)
    if match is None or match[2] not in _MODULES:
        known = ", ".join(_MODULES)
        raise Unsupported(f"{file}: {key}: adapters are supported on {known} of a layer, not here")
    return f"blk.{int(match[1])}.{_MODULES[match[2]]}.weight", match[3]


def _to_float32(tensor: Tensor) -> np.ndarray:
    return dequantize(tensor.storage, tensor.data, tensor.shape[-1]).reshape(tensor.shape)


def _pair(name: str, found: Mapping[str, np.ndarray], rank: int, file: str) -> tuple[np.ndarray, np.ndarray]:
    if set(found) != {"A", "B"}:
        raise BadWeights(file, name, "both lora_A and lora_B", f"only lora_{next(iter(found))}")
    a, b = found["A"], found["B"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise BadWeights(file, name, f"rank {rank} as in adapter_config.json", f"A {a.shape}, B {b.shape}")
    return a, b
