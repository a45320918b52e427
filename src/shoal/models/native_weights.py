"""A checkpoint's weights in the kernels' layout: each packed once, after its first use, and shared by every later one.

Packing runs in threads of its own while the network is recorded, which needs addresses and shapes only.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from shoal.kernels.native import Arena, Library, Matrix, aligned, pack
from shoal.kernels.quant import dequantize
from shoal.models.mapped import let_go
from shoal.models.tensors import BLOCK, Tensor, Weights

FLOATS = ("F32", "F16", "BF16")


class NativeWeights:
    """Addresses of packed matrices and float32 vectors, kept alive by this object; good to use after `finish`."""

    def __init__(self, weights: Weights, library: Library, threads: int = 1) -> None:
        self._weights, self._library = weights, library
        self._packers = ThreadPoolExecutor(threads, "shoal-pack")
        self._packing: list[Future[None]] = []
        self._matrices: dict[str, ctypes.Array[Matrix]] = {}
        self._vectors: dict[str, np.ndarray] = {}
        self._memory: list[np.ndarray] = []
        self._arena = Arena()

    @property
    def size_bytes(self) -> int:
        """Memory the packed weights take."""
        return sum(memory.nbytes for memory in self._memory) + sum(v.nbytes for v in self._vectors.values())

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights[name].shape

    def is_quantized(self, name: str) -> bool:
        return self._weights[name].storage not in FLOATS

    def matrix(self, name: str) -> int:
        """Address of the packed matrix, or of the first of a stack's (experts, rows, columns)."""
        if name not in self._matrices:
            self._matrices[name] = self._begin(self._weights[name])
        return ctypes.addressof(self._matrices[name])

    def vector(self, name: str) -> int:
        """Address of a float32 copy of a norm weight or bias."""
        if name not in self._vectors:
            tensor = self._weights[name]
            values = dequantize(tensor.storage, tensor.data.reshape(1, -1), tensor.shape[-1])
            memory = aligned(values.nbytes).view(np.float32)
            memory[:] = values.reshape(-1)
            self._vectors[name] = memory
        return int(self._vectors[name].ctypes.data)

    def finish(self) -> None:
        """Wait until everything asked for is packed. Unsupported for a shape that its storage cannot have."""
        self._packers.shutdown()
        for packing in self._packing:
            packing.result()
        self._packing.clear()

    def _begin(self, tensor: Tensor) -> ctypes.Array[Matrix]:
        matrices = (Matrix * (tensor.shape[0] if len(tensor.shape) == 3 else 1))()
        self._packing.append(self._packers.submit(self._pack, tensor, matrices))
        return matrices

    def _pack(self, tensor: Tensor, matrices: ctypes.Array[Matrix]) -> None:
        rows, columns = tensor.shape[-2:]
        block, width = BLOCK[tensor.storage]
        data = tensor.data.reshape(len(matrices), rows, columns // block * width)
        for index in range(len(matrices)):
            matrices[index], memory = pack(self._library, tensor.storage, data[index], rows, columns, self._arena.take)
            self._memory.append(memory)
        let_go(tensor.data)
