"""A trained draft as a model on disk: a GGUF file beside a GGUF target, a Hugging Face folder beside such a folder.

The tokenizer is the target's, copied byte for byte, so that the draft's token ids mean the same.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shoal.core.errors import Unsupported
from shoal.kernels.quant import quantize_q4_0, quantize_q8_0
from shoal.models.checkpoint import Checkpoint
from shoal.models.config import Family, ModelConfig
from shoal.models.gguf import read_gguf
from shoal.models.gguf_config import FAMILIES, ROPE_FACTORS
from shoal.models.gguf_writer import write_gguf
from shoal.models.mapped import read_json
from shoal.models.names import LAYER_NAMES, MODEL_NAMES
from shoal.models.tensors import Tensor

DraftStorage = Literal["Q8_0", "Q4_0"]

_QUANTIZE: dict[str, Callable[[np.ndarray], np.ndarray]] = {"Q8_0": quantize_q8_0, "Q4_0": quantize_q4_0}
_FILE_TYPE = {"Q4_0": 2, "Q8_0": 7}

Values = Mapping[str, np.ndarray]
"""float32 by canonical name, rows of Q and K half-split, norms as final multipliers."""


def write_draft(path: Path, target: Checkpoint, config: ModelConfig, values: Values, storage: DraftStorage) -> None:
    """A file where the target's tokenizer is in a file (quantised), a folder where it is in one (BF16)."""
    if target.tokenizer.kind == "gguf":
        tensors = [_stored(name, _file_rows(name, array, config), storage) for name, array in values.items()]
        metadata = {**_architecture(target, config), "general.file_type": _FILE_TYPE[storage]}
        write_gguf(path, metadata | dict(target.tokenizer.metadata), [*tensors, *_rope_factors(target)])
    else:
        assert target.tokenizer.folder is not None
        _write_folder(path, target.tokenizer.folder, config, values)


# ---- GGUF ------------------------------------------------------------------------------------------------------


def _stored(name: str, array: np.ndarray, storage: DraftStorage) -> Tensor:
    values = np.ascontiguousarray(array, np.float32)
    if values.ndim == 1:
        return Tensor(name, values.shape, "F32", values.view(np.uint8).reshape(1, -1))
    return Tensor(name, values.shape, storage, _QUANTIZE[storage](values))


def _file_rows(name: str, array: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Rows of Q and K interleaved where the architecture's files have them so: `gguf_weights` undoes this."""
    match = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
    if match is None or config.family != "llama":
        return array
    heads = config.num_heads if match[1] == "q" else config.num_kv_heads
    split = array.reshape(heads, 2, config.head_dim // 2, *array.shape[1:])
    return split.swapaxes(1, 2).reshape(array.shape)


def _architecture(target: Checkpoint, config: ModelConfig) -> dict[str, Any]:
    """The target's keys, with the draft's sizes; keys of experts and of split files go."""
    source = read_gguf(target.path).metadata if target.files else {}
    old = str(source.get("general.architecture", ""))
    new = next(name for name, family in FAMILIES.items() if family == config.family)
    prefix = f"{old}."
    kept = {
        f"{new}.{key.removeprefix(prefix)}": value
        for key, value in source.items()
        if old and key.startswith(prefix) and "expert" not in key
    }
    pattern = kept.get(f"{new}.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        kept[f"{new}.attention.sliding_window_pattern"] = pattern[: config.num_layers]
    general = {"general.architecture": new, "general.name": f"draft for {target.name}"}
    return {**general, **kept, **{f"{new}.{key}": value for key, value in _sizes(config).items()}}


def _sizes(config: ModelConfig) -> dict[str, Any]:
    """Keys that must be there, and those whose default depends on a size."""
    scale = {} if config.query_scale == config.head_dim**-0.5 else {"attention.scale": config.query_scale}
    return scale | {
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.ffn_size,
        "vocab_size": config.vocab_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": config.rope_kinds[0].dims or config.head_dim,
        "rope.freq_base": config.rope_kinds[0].theta,
    }


def _rope_factors(target: Checkpoint) -> list[Tensor]:
    """Llama 3.1's frequency divisors, which the config was read from and the file must say again."""
    file = read_gguf(target.path) if target.files else None
    return [file.tensors[ROPE_FACTORS]] if file is not None and ROPE_FACTORS in file.tensors else []


# ---- Hugging Face ----------------------------------------------------------------------------------------------

_CLASSES: dict[Family, tuple[str, str]] = {
    "llama": ("llama", "LlamaForCausalLM"), "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"), "gemma2": ("gemma2", "Gemma2ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
}  # fmt: skip
_EXPERT_KEYS = ("num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob",
                "decoder_sparse_step", "mlp_only_layers", "output_router_logits", "router_aux_loss_coef",
                "router_jitter_noise")  # fmt: skip
_TEXTS = (".jinja", ".model", ".txt")


def _write_folder(folder: Path, source: Path, config: ModelConfig, values: Values) -> None:
    written = dict(read_json(source / "config.json"))
    if "text_config" in written:
        raise Unsupported(f"{source}: a draft for a vision model's folder is not written; use its text model's folder")
    for key in _EXPERT_KEYS:
        written.pop(key, None)
    kind, name = _CLASSES[config.family]
    written |= {"architectures": [name], "model_type": written["model_type"] if kind == "llama" and not _is_moe(written)
                else kind, **_folder_sizes(config)}  # fmt: skip
    if isinstance(written.get("layer_types"), list):
        written["layer_types"] = written["layer_types"][: config.num_layers]
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for item in source.iterdir():
        if item.is_file() and item.name != "config.json" and _is_text(item):
            shutil.copyfile(item, partial / item.name)
    (partial / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    _write_safetensors(partial / "model.safetensors", _folder_values(config, values))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _is_moe(values: Mapping[str, Any]) -> bool:
    return values.get("model_type") in ("mixtral", "qwen3_moe")


def _is_text(path: Path) -> bool:
    return path.suffix in _TEXTS or (path.suffix == ".json" and not path.name.endswith(".index.json"))


def _folder_sizes(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_size,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }


def _folder_values(config: ModelConfig, values: Values) -> dict[str, np.ndarray]:
    """Under Hugging Face's names; Gemma's norms without the 1 that its networks add."""
    names = {canonical: name for name, canonical in MODEL_NAMES.items()}
    for layer in range(config.num_layers):
        parts = LAYER_NAMES[config.family].items()
        names |= {f"blk.{layer}.{canonical}": f"model.layers.{layer}.{name}" for name, canonical in parts}
    is_gemma = config.family in ("gemma2", "gemma3")
    return {
        names[name]: array - 1 if is_gemma and name.endswith("norm.weight") else array for name, array in values.items()
    }


def _write_safetensors(path: Path, values: Values) -> None:
    """BF16, rounded to the nearest."""
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in values.items():
        data = _bfloat16(array)
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def _bfloat16(array: np.ndarray) -> bytes:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    return rounded.astype("<u2").tobytes()
