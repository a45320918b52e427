"""The tiny random model as a GGUF file: what a process that must read its model from disk is tested with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.models.config import Family, ModelConfig
from shoal.models.gguf_writer import write_gguf
from shoal.models.tiny import CHAT_TEMPLATE, TinyShape, tiny_checkpoint

FAMILY: Family = "qwen3"
"""Rows of its Q and K are in files as they are in memory; llama's are interleaved there."""


def write_tiny(path: Path, shape: TinyShape | None = None, seed: int = 0, family: Family = FAMILY) -> None:
    """A file that `read_gguf` and everything above it takes for a model. OSError as files do.

    With another family than FAMILY the file's network is not that of `tiny_checkpoint`: see there.
    """
    checkpoint = tiny_checkpoint(family, seed, shape, "Q8_0")
    metadata = {"general.architecture": family, "general.name": checkpoint.name, "general.file_type": 7}
    sizes = {f"{family}.{key}": value for key, value in _sizes(checkpoint.config).items()}
    template = {"tokenizer.chat_template": CHAT_TEMPLATE}
    write_gguf(path, {**metadata, **sizes, **checkpoint.tokenizer.metadata, **template}, checkpoint.weights.values())


def _sizes(config: ModelConfig) -> dict[str, Any]:
    return {
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
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_kinds[0].theta,
    }
