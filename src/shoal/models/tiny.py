"""A tiny random model of any family, the same for the same seed: a real checkpoint for tests of every floor above.

Its vocabulary is the 256 bytes (id = byte) and three control tokens, its template is ChatML; so any text round-trips,
and answers are noise, but exactly reproducible noise. Fakes ship beside seams; this is the fake of a weight file.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shoal.kernels.quant import quantize_q4_0, quantize_q4_1, quantize_q8_0
from shoal.models.byte_level import CHAR_OF_BYTE
from shoal.models.checkpoint import Checkpoint, TokenizerSource
from shoal.models.config import Family, ModelConfig, Rope
from shoal.models.names import expected_shapes
from shoal.models.tensors import Storage, Tensor

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Ids 256, 257, 258; <|im_end|> ends an answer."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_QUANTIZE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Q8_0": quantize_q8_0, "Q4_0": quantize_q4_0, "Q4_1": quantize_q4_1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Dimensions; multiples of 32, so that every matrix can be stored quantised. head_dim is not hidden / heads.

    window  sliding window of the Gemma families' local layers.
    """

    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    ffn_size: int = 96
    num_experts: int = 4
    window: int = 24
    context_length: int = 1024


def tiny_config(family: Family, shape: TinyShape | None = None) -> ModelConfig:
    """What this family looks like at this size, with the features that set it apart switched on."""
    shape = shape or TinyShape()
    layers, is_gemma, is_mixture = shape.num_layers, family.startswith("gemma"), family in ("mixtral", "qwen3moe")
    ropes = (Rope(dims=shape.head_dim), Rope(theta=1e6, dims=shape.head_dim, scaling="linear", factor=8.0))
    is_local = [is_gemma and layer % 2 == 0 for layer in range(layers)]
    return ModelConfig(
        family=family,
        vocab_size=256 + len(CONTROL_TOKENS),
        hidden_size=shape.hidden_size,
        num_layers=layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        ffn_size=shape.ffn_size,
        norm_eps=1e-6,
        context_length=shape.context_length,
        rope_kinds=ropes if family == "gemma3" else ropes[:1],
        ropes=tuple(int(family == "gemma3" and not local) for local in is_local),
        windows=tuple(shape.window if local else None for local in is_local),
        query_scale=shape.head_dim**-0.5,
        activation="gelu_tanh" if is_gemma else "silu",
        attn_softcap=50.0 if family == "gemma2" else 0.0,
        logit_softcap=30.0 if family == "gemma2" else 0.0,
        embed_scale=shape.hidden_size**0.5 if is_gemma else 1.0,
        is_tied=is_gemma,
        has_qkv_bias=family == "qwen2",
        has_qk_norm=family in ("qwen3", "qwen3moe", "gemma3"),
        num_experts=shape.num_experts if is_mixture else 0,
        experts_per_token=2 if is_mixture else 0,
        expert_ffn_size=shape.ffn_size if is_mixture else 0,
    )


def tiny_checkpoint(
    family: Family = "llama",
    seed: int = 0,
    shape: TinyShape | None = None,
    storage: Literal["F32", "Q8_0", "Q4_0", "Q4_1"] = "F32",
) -> Checkpoint:
    """A whole model in memory. `storage` is how matrices are kept; vectors are F32 as in every checkpoint."""
    config = tiny_config(family, shape)
    weights = {
        name: _tensor(name, _values(name, size, seed), storage) for name, size in expected_shapes(config).items()
    }
    return Checkpoint(
        config=config,
        weights=weights,
        path=Path(f"tiny-{family}-{seed}"),
        name=f"tiny-{family}",
        files=(),
        size_bytes=sum(tensor.size_bytes for tensor in weights.values()),
        quantization=storage,
        tokenizer=TokenizerSource("gguf", _tokenizer_metadata(), None),
        chat_template=CHAT_TEMPLATE,
    )


def _values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Drawn from the seed and the name alone: the same whatever else the model has."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = random.standard_normal(shape, dtype=np.float32)
    if name.endswith("norm.weight"):
        return 1.0 + np.float32(0.1) * noise
    if len(shape) == 1:
        return np.float32(0.1) * noise
    return noise / np.float32(shape[-1] ** 0.5)


def _tensor(name: str, values: np.ndarray, storage: Storage) -> Tensor:
    if values.ndim == 1 or storage == "F32":
        return Tensor(name, values.shape, "F32", values.reshape(-1, values.shape[-1]).view(np.uint8))
    return Tensor(name, values.shape, storage, _QUANTIZE[storage](values.reshape(-1, values.shape[-1])))


def _tokenizer_metadata() -> Mapping[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [CHAR_OF_BYTE[byte] for byte in range(256)] + list(CONTROL_TOKENS),
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(CONTROL_TOKENS),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.eos_token_id": 258,
    }
