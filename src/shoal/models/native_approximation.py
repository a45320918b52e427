"""Approximate inference on the C kernels: what `engine.approximate` asks of a runner, by the model's own names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.core.errors import Unsupported
from shoal.kernels.approximation import PartialSteps
from shoal.kernels.executor import Executor
from shoal.kernels.native import Library, Matrix, pack
from shoal.kernels.quant import dequantize, quantize_q8_0
from shoal.models.batch import Batch
from shoal.models.config import ModelConfig
from shoal.models.tensors import BLOCK, Tensor, Weights

NEURON_GROUP = 32
"""Neurons a slice is a whole number of: its down projection is quantised in blocks of 32 columns."""


class NativeApproximation:
    """Early exit, key importance, compaction of the cache and core-neuron slices of one `NativeRunner`."""

    def __init__(self, config: ModelConfig, weights: Weights, executor: Executor, library: Library) -> None:
        self._config, self._weights, self._executor, self._library = config, weights, executor, library
        self._steps = PartialSteps(executor)

    @property
    def num_layers(self) -> int:
        return self._config.num_layers

    @property
    def num_kv_heads(self) -> int:
        return self._config.num_kv_heads

    @property
    def pair_bytes(self) -> int:
        """Of one cached position: its keys and values in every layer."""
        cache = self._executor.cache
        return 2 * cache.layer_bytes * cache.num_layers // (cache.num_blocks * cache.block_size)

    def check_positions(self) -> None:
        """Unsupported for a network whose windows count positions: dropped keys would shift them."""
        if any(window is not None for window in self._config.windows):
            raise Unsupported("dropping keys needs full attention in every layer; this model has sliding windows")

    def check_depth(self, layers: int) -> None:
        """Unsupported where the network cannot stop after `layers`."""
        self._steps.check_depth(layers)

    def check_neurons(self) -> None:
        """Unsupported for a network whose feed-forward cannot be sliced."""
        if len(self._steps.feed_forwards) != self.num_layers:
            raise Unsupported("core neurons need a gated feed-forward in every layer; this model has experts")

    def run(self, batch: Batch, layers: int = 0, neurons: int = -1) -> np.ndarray:
        """As `NativeRunner.run`, of the first `layers` and the head only (0: all), or with a slot's core neurons."""
        return self._steps.run(batch, layers, neurons)

    def importance(self, batch: Batch, row_weights: np.ndarray, is_mean: bool, layers: int = 0) -> np.ndarray:
        """Run a batch of one sequence: float32 (layers, kv heads, keys), as `PartialSteps.importance`."""
        return self._steps.importance(batch, row_weights, is_mean, layers)

    def activations(self, batch: Batch) -> np.ndarray:
        """Run a batch: float32 (layers, rows, ffn), what enters each down projection."""
        return self._steps.activations(batch)

    def keep_positions(self, source: Sequence[int], target: Sequence[int], kept: np.ndarray) -> None:
        """Position i of the blocks `target` gets position kept[layer, kv head, i] of `source`, keys and values."""
        self._executor.keep_positions(np.array(source, np.int32), np.array(target, np.int32), kept)

    def set_neurons(self, slot: int, neurons: np.ndarray) -> int:
        """Pack a slice of every feed-forward into a slot and return its bytes. neurons: int (layers, n), n % 32 == 0.

        Gate and up rows keep their codes; down columns cross their blocks, so they are quantised anew, to Q8_0.
        """
        matrices: list[tuple[Matrix, ...]] = []
        memory: list[np.ndarray] = []
        for layer, chosen in enumerate(neurons):
            parts = [self._rows(layer, name, chosen) for name in ("gate", "up")] + [self._columns(layer, chosen)]
            matrices.append(tuple(matrix for matrix, _ in parts))
            memory += [data for _, data in parts]
        self._steps.set_variant(slot, matrices, memory)
        return sum(data.nbytes for data in memory)

    def drop_neurons(self, slot: int) -> None:
        self._steps.drop_variant(slot)

    def _rows(self, layer: int, name: str, chosen: np.ndarray) -> tuple[Matrix, np.ndarray]:
        tensor, data = self._tensor(layer, name)
        return pack(self._library, tensor.storage, data[chosen], len(chosen), tensor.shape[1])

    def _columns(self, layer: int, chosen: np.ndarray) -> tuple[Matrix, np.ndarray]:
        tensor, data = self._tensor(layer, "down")
        values = dequantize(tensor.storage, data, tensor.shape[1])[:, chosen]
        return pack(self._library, "Q8_0", quantize_q8_0(np.ascontiguousarray(values)), tensor.shape[0], len(chosen))

    def _tensor(self, layer: int, name: str) -> tuple[Tensor, np.ndarray]:
        """A matrix and its rows: uint8 (rows, bytes per row)."""
        tensor = self._weights[f"blk.{layer}.ffn_{name}.weight"]
        block, width = BLOCK[tensor.storage]
        return tensor, tensor.data.reshape(tensor.shape[0], tensor.shape[1] // block * width)
