"""What a model is, in words and numbers a person asks for: read from its files, nothing computed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import BadWeights
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.config import ModelConfig
from shoal.models.fields import Fields
from shoal.models.gguf import read_gguf
from shoal.models.safetensors import read_safetensors
from shoal.models.store import weight_files
from shoal.models.tokenizer import load_tokenizer
from shoal.models.tools import tool_kind


@dataclass(frozen=True, slots=True)
class StorageUse:
    storage: str
    num_tensors: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TokenizerNote:
    """`source` is where it is read from: "gguf" metadata or "folder" (tokenizer.json). Ids of the end tokens."""

    source: str
    vocab_size: int
    adds_bos: bool
    eos_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """tools: how calls are written ("hermes", "llama3", "mistral"), or "generic": described to the model in text."""

    title: str
    quantization: str
    num_parameters: int
    size_bytes: int
    config: ModelConfig
    storages: tuple[StorageUse, ...]
    tokenizer: TokenizerNote
    has_chat_template: bool
    tools: str


def describe(path: Path) -> Description:
    """Open the model and its tokenizer. BadWeights for files that cannot be served, naming file and field."""
    checkpoint = open_checkpoint(path)
    return Description(
        title=checkpoint.name,
        quantization=checkpoint.quantization,
        num_parameters=sum(math.prod(tensor.shape) for tensor in checkpoint.weights.values()),
        size_bytes=checkpoint.size_bytes,
        config=checkpoint.config,
        storages=_storages(checkpoint),
        tokenizer=_tokenizer(checkpoint),
        has_chat_template=checkpoint.chat_template is not None,
        tools=tool_kind(checkpoint.chat_template),
    )


def _storages(checkpoint: Checkpoint) -> tuple[StorageUse, ...]:
    """By bytes, most first."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in checkpoint.weights.values():
        counts[tensor.storage] += 1
        sizes[tensor.storage] += tensor.size_bytes
    return tuple(StorageUse(name, counts[name], size) for name, size in sizes.most_common())


def _tokenizer(checkpoint: Checkpoint) -> TokenizerNote:
    loaded = load_tokenizer(checkpoint.tokenizer)
    return TokenizerNote(checkpoint.tokenizer.kind, loaded.vocab_size, loaded.adds_bos, tuple(sorted(loaded.eos_ids)))


def check_container(path: Path) -> None:
    """BadWeights unless `path` is a whole GGUF file, or a folder with a config and whole safetensors files.

    What is inside may still be a network this version does not know: `describe` tells.
    """
    if path.is_file():
        read_gguf(path)
        return
    names = {item.name for item in weight_files(path)}
    if "config.json" not in names:
        raise BadWeights(str(path), "config.json", "a Hugging Face style folder with one", "no such file")
    tensors = [name for name in names if name.endswith(".safetensors")]
    if not tensors:
        raise BadWeights(str(path), "*.safetensors", "weights as safetensors (pickles are never read)", "none")
    for name in tensors:
        read_safetensors(path / name, lambda tensor: True)


def licence(path: Path) -> str | None:
    """What a GGUF file says its licence is; None for a folder, whose files do not say."""
    return Fields(str(path), read_gguf(path).metadata).text("general.license", "") or None if path.is_file() else None
