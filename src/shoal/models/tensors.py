"""Weights as they lie in their file: a name, a shape, a storage type and the raw bytes, never copied before use.

Canonical names are GGUF's (`blk.0.attn_q.weight`, `token_embd.weight`); readers of other formats map to them.
Rows of Q and K are in Hugging Face order (half-split RoPE) whatever the file's order was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shoal.kernels.quant import BLOCK as BLOCK
from shoal.kernels.quant import Floats, dequantize
from shoal.kernels.quant import Storage as Storage


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` is (rows, columns) for matrices, (experts, rows, columns) for stacked experts, (n,) for vectors.

    data  uint8, shape (product of leading dimensions, bytes per row), C-contiguous, possibly a read-only view of a
          memory-mapped file.
    """

    name: str
    shape: tuple[int, ...]
    storage: Storage
    data: np.ndarray

    @property
    def size_bytes(self) -> int:
        return int(self.data.nbytes)

    def floats(self) -> Floats:
        """The numbers it stands for, float32 in its shape."""
        return dequantize(self.storage, self.data, self.shape[-1]).reshape(self.shape)


Weights = Mapping[str, Tensor]
