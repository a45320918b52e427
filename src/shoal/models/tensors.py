"""Weights as they lie in their file: a name, a shape, a storage type and the raw bytes, never copied before use.

Canonical names are GGUF's (`blk.0.attn_q.weight`, `token_embd.weight`); readers of other formats map to them.
Rows of Q and K are in Hugging Face order (half-split RoPE) whatever the file's order was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Storage = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]

BLOCK = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20),
         "Q5_0": (32, 22), "Q5_1": (32, 24), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210)}  # fmt: skip
"""Elements and bytes of one block of each storage type (ggml's definitions)."""


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


Weights = Mapping[str, Tensor]
