"""Open a model from disk: a GGUF file or a Hugging Face style folder becomes the same `Checkpoint`.

Rules that stay true for every `Checkpoint`:
- `weights` holds exactly the tensors of `names.expected_shapes(config)`, with those shapes;
- vectors (norms, biases) are F32 and norm weights are final multipliers; rows of Q and K are half-split.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shoal.models.config import ModelConfig, Part
from shoal.models.fields import Fields
from shoal.models.gguf import GgufFile, read_gguf
from shoal.models.gguf_config import gguf_config
from shoal.models.gguf_weights import gguf_weights
from shoal.models.huggingface import read_folder
from shoal.models.mapped import read_json, read_text
from shoal.models.tensors import Tensor

_FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 14: "Q4_K_S", 15: "Q4_K_M",
               16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16"}  # fmt: skip
"""GGUF's `general.file_type` (llama.h, `llama_ftype`), of the storages Shoal reads."""


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """What a tokenizer is built from: the `tokenizer.*` metadata of a GGUF file, or a folder with tokenizer.json."""

    kind: Literal["gguf", "folder"]
    metadata: Mapping[str, Any]
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as it lies on disk.

    files         the weight files; size_bytes is the sum of their sizes.
    quantization  short label: "Q4_1", "Q4_K_M", "BF16".
    chat_template Jinja source, or None where the model has none.
    part          which layers of a larger network these are; None: a whole model.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    path: Path
    name: str
    files: tuple[Path, ...]
    size_bytes: int
    quantization: str
    tokenizer: TokenizerSource
    chat_template: str | None
    part: Part | None = None


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Map the weights and check every shape. BadWeights names the file, the field, what was expected and found."""
    return _open_folder(Path(path)) if os.path.isdir(path) else _open_gguf(Path(path))


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    config = gguf_config(file)
    weights = gguf_weights(file, config)
    general = Fields(str(path), file.metadata)
    tokenizer = {key: value for key, value in file.metadata.items() if key.startswith("tokenizer.")}
    return Checkpoint(
        config=config,
        weights=weights,
        path=path,
        name=general.text("general.name", path.stem),
        files=(path,),
        size_bytes=file.size_bytes,
        quantization=_gguf_label(file, weights),
        tokenizer=TokenizerSource("gguf", tokenizer, None),
        chat_template=general.text("tokenizer.chat_template", "") or None,
    )


def _open_folder(folder: Path) -> Checkpoint:
    config, weights, files = read_folder(folder)
    return Checkpoint(
        config=config,
        weights=weights,
        path=folder,
        name=folder.resolve().name,
        files=files,
        size_bytes=sum(file.stat().st_size for file in files),
        quantization=_label(weights),
        tokenizer=TokenizerSource("folder", {}, folder),
        chat_template=_folder_template(folder),
    )


def _gguf_label(file: GgufFile, weights: Mapping[str, Tensor]) -> str:
    kind = file.metadata.get("general.file_type")
    return _FILE_TYPES.get(kind) or _label(weights) if type(kind) is int else _label(weights)


def _label(weights: Mapping[str, Tensor]) -> str:
    """The storage type that most bytes have."""
    sizes: Counter[str] = Counter()
    for tensor in weights.values():
        sizes[tensor.storage] += tensor.size_bytes
    return sizes.most_common(1)[0][0]


def _folder_template(folder: Path) -> str | None:
    """chat_template.jinja (transformers 5), else `chat_template` in tokenizer_config.json: text, or a list by name."""
    if os.path.exists(folder / "chat_template.jinja"):
        return read_text(folder / "chat_template.jinja")
    path = folder / "tokenizer_config.json"
    if not os.path.exists(path):
        return None
    fields = Fields(str(path), read_json(path))
    template = fields.get("chat_template")
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
        fields = Fields(str(path), {"chat_template": named[0].get("template") if named else template})
    return fields.text("chat_template", "") or None
