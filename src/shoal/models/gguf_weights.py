"""Weights out of a parsed GGUF file, with rows of Q and K in half-split order whatever the file's was.

llama.cpp's converter interleaves the rows of each head for the "llama" architecture (Llama, Mistral, Mixtral), because
its rotation there pairs neighbours: half-split row h * d + s * d/2 + i is stored at h * d + 2 * i + s
(`LlamaModel.permute` in convert_hf_to_gguf.py). Other architectures keep Hugging Face's order.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from shoal.models.check import checked_weights
from shoal.models.config import ModelConfig
from shoal.models.gguf import GgufFile
from shoal.models.gguf_config import ROPE_FACTORS
from shoal.models.tensors import Tensor

_BUFFER = re.compile(r"blk\.\d+\.attn_rot_embd\.weight|" + re.escape(ROPE_FACTORS))
_ROTATED = re.compile(r"blk\.\d+\.attn_([qk])\.(weight|bias)")


def gguf_weights(file: GgufFile, config: ModelConfig) -> dict[str, Tensor]:
    """Checked weights: views of the file, but for vectors and the rows that move.

    Rotary buffers, which the config already tells, are left out. BadWeights as `checked_weights`.
    """
    kept = {name: tensor for name, tensor in file.tensors.items() if not _BUFFER.fullmatch(name)}
    weights = checked_weights(str(file.path), config, kept)
    if config.family not in ("llama", "mixtral"):
        return weights
    return {name: _half_split(tensor, config) for name, tensor in weights.items()}


def _half_split(tensor: Tensor, config: ModelConfig) -> Tensor:
    match = _ROTATED.fullmatch(tensor.name)
    if match is None:
        return tensor
    heads = config.num_heads if match[1] == "q" else config.num_kv_heads
    order = np.arange(tensor.shape[0]).reshape(heads, config.head_dim // 2, 2).swapaxes(1, 2).ravel()
    rows = tensor.data.reshape(tensor.shape[0], -1)  # a bias is one row of bytes: split it by element
    return replace(tensor, data=rows[order].reshape(tensor.data.shape))
