"""Weights on a torch device: in the bytes of their file (float32 arithmetic), or converted once to bfloat16.

In float32 on the CPU nothing is copied: tensors are views of the memory-mapped file, and a matrix is turned into floats
a few rows at a time, used and forgotten, so that memory stays close to the file's size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from shoal.core.errors import BadWeights
from shoal.models.tensors import Storage, Tensor, Weights
from shoal.models.torch_quant import dequantize

CHUNK_ELEMENTS = 1 << 21
"""Elements dequantised at a time (8 MiB of float32): large enough for the matmul, small beside any model."""


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """One weight. `data` is uint8 (rows, bytes per row); leading dimensions of `shape` are flattened into rows."""

    shape: tuple[int, ...]
    storage: Storage
    data: torch.Tensor

    @property
    def num_rows(self) -> int:
        """Rows of the matrix, of one expert's matrix when experts are stacked."""
        return self.shape[-2]


class TorchWeights:
    """Weights by canonical name, read as floats of `dtype`. BadWeights names a weight the file lacks."""

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._tensors = {name: _place(tensor, device, dtype) for name, tensor in weights.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def vector(self, name: str) -> torch.Tensor:
        """A norm's or bias's weights, float32 (n,): what is added or multiplied per element is never rounded."""
        tensor = self._find(name)
        return dequantize(tensor.data, tensor.storage).flatten()

    def rows(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """Chosen rows of a matrix: (ids, columns)."""
        tensor = self._find(name)
        return dequantize(tensor.data[ids], tensor.storage, self.dtype)

    def matmul(self, x: torch.Tensor, name: str, expert: int = 0) -> torch.Tensor:
        """x @ W^T with W the matrix, or the matrix of one of the stacked experts: (rows, W's rows)."""
        parts = [x @ chunk.T for chunk in self._chunks(self._find(name), expert)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _chunks(self, tensor: TorchTensor, expert: int) -> Iterator[torch.Tensor]:
        first, last = expert * tensor.num_rows, (expert + 1) * tensor.num_rows
        step = tensor.num_rows if self._is_stored_as_used(tensor) else max(1, CHUNK_ELEMENTS // tensor.shape[-1])
        for start in range(first, last, step):
            yield dequantize(tensor.data[start : min(start + step, last)], tensor.storage, self.dtype)

    def _is_stored_as_used(self, tensor: TorchTensor) -> bool:
        return (tensor.storage, self.dtype) in (("F32", torch.float32), ("BF16", torch.bfloat16))

    def _find(self, name: str) -> TorchTensor:
        if name not in self._tensors:
            raise BadWeights("weights", name, "a tensor of this name", "none")
        return self._tensors[name]


def _place(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> TorchTensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = torch.from_numpy(tensor.data)  # never written to: the file is mapped read-only
    if dtype is torch.bfloat16 and len(tensor.shape) > 1:
        return TorchTensor(tensor.shape, "BF16", _to_bfloat16(tensor, data, device))
    return TorchTensor(tensor.shape, tensor.storage, data.to(device))  # on the CPU: the same memory


def _to_bfloat16(tensor: Tensor, data: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Dequantised on the device chunk by chunk, so that the float32 intermediate stays small."""
    step = max(1, CHUNK_ELEMENTS // tensor.shape[-1])
    converted = torch.empty((data.shape[0], tensor.shape[-1]), dtype=torch.bfloat16, device=device)
    for start in range(0, data.shape[0], step):
        chunk = data[start : start + step].to(device)
        converted[start : start + step] = dequantize(chunk, tensor.storage, torch.bfloat16)
    return converted.view(torch.uint8)
