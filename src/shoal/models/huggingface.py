"""A Hugging Face style folder (config.json and safetensors, sharded or not) to a config and canonical weights.

Matrices are views of the mapped files. Copied are vectors (as F32, with Gemma's 1 + w resolved) and stacked experts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from shoal.core.errors import BadWeights
from shoal.models.check import checked_weights
from shoal.models.config import Family, ModelConfig
from shoal.models.fields import Fields
from shoal.models.huggingface_config import huggingface_config
from shoal.models.mapped import read_json
from shoal.models.names import FUSED_DOWN, FUSED_GATE_UP, canonical_name, is_ignored
from shoal.models.safetensors import read_safetensors
from shoal.models.tensors import Tensor

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor], tuple[Path, ...]]:
    """(config, weights under canonical names, weight files). BadWeights names the file, field, expected and found."""
    path = folder / "config.json"
    config, _ = huggingface_config(str(path), read_json(path))
    raw, files = _read_files(folder, config.is_tied)
    weights = checked_weights(str(folder), config, _split_fused(str(folder), _renamed(str(folder), raw, config)))
    if config.family in ("gemma2", "gemma3"):
        weights = {
            name: _plus_one(tensor) if name.endswith("_norm.weight") else tensor for name, tensor in weights.items()
        }
    return config, weights, files


def _read_files(folder: Path, is_tied: bool) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    index = folder / _INDEX
    if not os.path.exists(index):
        return read_safetensors(folder / _SINGLE, lambda name: is_ignored(name, is_tied)), (folder / _SINGLE,)
    places = _weight_map(index)
    tensors: dict[str, Tensor] = {}
    files = tuple(folder / name for name in sorted(set(places.values())))
    for path in files:
        for name, tensor in read_safetensors(path, lambda name: is_ignored(name, is_tied)).items():
            if places.get(name) != path.name:
                raise BadWeights(str(path), f"tensor {name}", f"to be in {places.get(name)}, as the index says", "it")
            tensors[name] = tensor
    for name, place in places.items():
        if name not in tensors and not is_ignored(name, is_tied):
            raise BadWeights(str(folder / place), f"tensor {name}", "it, as the index says", "nothing")
    return tensors, files


def _weight_map(index: Path) -> Mapping[str, str]:
    """Tensor name to file name; never a path, so that an index cannot point outside its folder."""
    fields = Fields(str(index), read_json(index))
    places = fields.get("weight_map")
    if not isinstance(places, dict) or not places:
        fields.fail("weight_map", "an object of tensor names and file names", places)
    for place in places.values():
        if not isinstance(place, str) or Path(place).name != place or not place.endswith(".safetensors"):
            fields.fail("weight_map", "names of .safetensors files in the same folder", place)
    return places


def _renamed(file: str, raw: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in raw.items():
        canonical, expert = _canonical(file, config.family, name)
        group = weights if expert is None else experts.setdefault(canonical, {})
        key = canonical if expert is None else expert
        if key in group:
            raise BadWeights(file, f"tensor {name}", "each tensor under one name", f"a second {canonical}")
        group[key] = replace(tensor, name=canonical)  # type: ignore[index]
    for canonical, parts in experts.items():
        if canonical in weights:
            raise BadWeights(file, f"tensor {canonical}", "experts stacked or apart", "both")
        weights[canonical] = _stacked(file, canonical, parts, config.num_experts)
    return weights


def _canonical(file: str, family: Family, name: str) -> tuple[str, int | None]:
    found = canonical_name(family, name)
    if found is None:
        raise BadWeights(file, f"tensor {name}", f"only tensors that {family} reads", "one that nothing reads")
    return found


def _stacked(file: str, name: str, parts: Mapping[int, Tensor], count: int) -> Tensor:
    """(experts, rows, columns) from one matrix per expert."""
    missing = next((expert for expert in range(count) if expert not in parts), None)
    if missing is not None or len(parts) != count:
        raise BadWeights(file, f"tensor {name}", f"experts 0 to {count - 1}", f"{len(parts)}, without {missing}")
    tensors = [parts[expert] for expert in range(count)]
    kinds = {(tensor.storage, tensor.shape) for tensor in tensors}
    if len(kinds) != 1:
        raise BadWeights(file, f"tensor {name}", "experts of one type and shape", str(sorted(map(str, kinds))))
    data = np.concatenate([tensor.data for tensor in tensors])
    return Tensor(name, (count, *tensors[0].shape), tensors[0].storage, data)


def _split_fused(file: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """gate_up (experts, 2 * ffn, hidden) becomes gate and up, each (experts, ffn, hidden)."""
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith(FUSED_GATE_UP):
            parts = _halves(file, tensor)
        elif name.endswith(FUSED_DOWN):
            parts = {name.removesuffix(FUSED_DOWN) + "ffn_down_exps.weight": tensor}
        else:
            parts = {name: tensor}
        for part, value in parts.items():
            if part in result:
                raise BadWeights(file, f"tensor {part}", "experts fused or apart", "both")
            result[part] = replace(value, name=part)
    return result


def _halves(file: str, tensor: Tensor) -> dict[str, Tensor]:
    if len(tensor.shape) != 3 or tensor.shape[1] % 2:
        raise BadWeights(file, f"tensor {tensor.name}", "(experts, 2 * ffn, hidden)", str(tensor.shape))
    experts, double, columns = tensor.shape
    rows = tensor.data.reshape(experts, double, -1)
    prefix = tensor.name.removesuffix(FUSED_GATE_UP)
    return {
        f"{prefix}ffn_{part}_exps.weight": replace(
            tensor,
            shape=(experts, double // 2, columns),
            data=np.ascontiguousarray(half).reshape(experts * double // 2, -1),
        )
        for part, half in (("gate", rows[:, : double // 2]), ("up", rows[:, double // 2 :]))
    }


def _plus_one(tensor: Tensor) -> Tensor:
    """Gemma multiplies by 1 + w; the rest of Shoal multiplies by the weight."""
    return replace(tensor, data=(tensor.data.view(np.float32) + np.float32(1)).view(np.uint8))
