"""Runs batches with the C kernels: one call per step, whatever the mix of prefill and decode."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from shoal.core.errors import BadConfig, BadWeights, LocalError, Unsupported
from shoal.kernels import build, native
from shoal.kernels.executor import KV_TYPES, CacheShape, Executor, ExpertShape, KvType, PackedAdapter, pack_adapter
from shoal.kernels.program import lower
from shoal.models.batch import Batch
from shoal.models.config import ModelConfig
from shoal.models.lora import Adapter, read_adapter
from shoal.models.native_approximation import NativeApproximation
from shoal.models.native_ops import NativeOps
from shoal.models.native_weights import NativeWeights
from shoal.models.part import speak

if TYPE_CHECKING:
    from shoal.models.checkpoint import Checkpoint

KEY_GROUP = 16
"""Keys the cache keeps side by side; a block is a whole number of these."""

MAX_HEAD_DIM = 256


class NativeRunner:
    """A network, its cache and its adapters on the CPU. Not thread-safe: one caller, one step at a time.

    num_blocks blocks of block_size positions each; adapter slots are 0 .. max_adapters - 1. `threads` None: every core.
    activation_bits 8 rounds what quantised products see as llama.cpp does; 16 equals float32 for all purposes, at up to
    twice the arithmetic and the same memory traffic.
    Raises Unsupported for a network the kernels cannot run (its text says which dimension), BadConfig for an option.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_blocks: int,
        block_size: int = 16,
        threads: int | None = None,
        kv_type: KvType = "f16",
        activation_bits: Literal[8, 16] = 8,
        max_adapters: int = 8,
        isa: str | None = None,
        kernel_cache: Path | None = None,
    ) -> None:
        self.block_size, self.num_blocks, self.max_adapters = block_size, num_blocks, max_adapters
        self._config = config = checkpoint.config
        self._isa = isa or build.available_isas()[0]
        library = native.load(self._isa, kernel_cache)
        _check_options(block_size, kv_type, activation_bits)
        check_dimensions(config, library.lanes)
        self._weights = NativeWeights(checkpoint.weights, library, threads or default_threads())
        ops = NativeOps(config, self._weights, min(config.context_length, num_blocks * block_size))
        lowered = lower(ops.recorder, speak(ops, checkpoint))
        self._weights.finish()
        self._tables, self._targets = ops.tables, ops.targets
        self._executor = Executor(
            library, lowered,
            CacheShape(config.num_layers, num_blocks, block_size, config.num_kv_heads, config.head_dim, kv_type),
            threads=threads or default_threads(), hidden_size=config.hidden_size, num_targets=len(ops.targets),
            max_adapters=max_adapters, experts=_expert_shape(config), activation_bits=activation_bits,
        )  # fmt: skip
        self._approximation = NativeApproximation(config, checkpoint.weights, self._executor, library)

    @property
    def vocab_size(self) -> int:
        return self._config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self._config.hidden_size

    @property
    def weights_bytes(self) -> int:
        """Memory the packed weights take."""
        return self._weights.size_bytes

    @property
    def kernels(self) -> str:
        """The instruction set they were built for, as "native-avx2"."""
        return f"native-{self._isa}"

    @property
    def approximation(self) -> NativeApproximation:
        """What approximate inference asks of a runner."""
        return self._approximation

    @property
    def threads(self) -> int:
        return self._executor.threads

    def run(self, batch: Batch) -> np.ndarray:
        """Fill the batch's cache slots and return float32 logits, (output_rows, vocab), valid until the next run.

        LocalError for an adapter slot that holds nothing.
        """
        if missing := set(batch.adapters.tolist()) - {-1} - self._executor.adapter_slots:
            raise LocalError(f"no adapter in slot {min(missing)}")
        return self._executor.run(batch)

    def taps(self) -> np.ndarray:
        """float32 (output_rows, hidden): the residual stream the last batch's `tap_layer` asked for; else no rows."""
        return self._executor.taps()

    def best(self) -> np.ndarray:
        """int32 (output_rows,): the first largest logit of each row of the last run, -1 for a row not all finite."""
        return self._executor.best()

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole cache blocks, (source, destination) each, in order."""
        if listed := list(pairs):
            self._executor.copy_blocks(listed)

    def read_adapter(self, path: str | Path) -> PackedAdapter:
        """A PEFT folder, ready for a slot; from any thread, also during a step.

        BadWeights where it does not fit the network; else as `models.lora.read_adapter`.
        """
        adapter = read_adapter(path)
        self._check_adapter(adapter, str(path))
        return pack_adapter(adapter.scaling, {self._targets[name]: pair for name, pair in adapter.pairs.items()})

    def load_adapter(self, slot: int, adapter: PackedAdapter) -> None:
        """Put what `read_adapter` made into a slot, between two steps."""
        if not 0 <= slot < self.max_adapters:
            raise BadConfig("adapters", f"expected a slot below {self.max_adapters}, found {slot}")
        self._executor.set_adapter(slot, adapter)

    def drop_adapter(self, slot: int) -> None:
        """Empty a slot; nothing happens when it is empty."""
        self._executor.drop_adapter(slot)

    def close(self) -> None:
        """Stop the threads. The runner cannot be used afterwards; closing twice is harmless."""
        self._executor.close()

    def _check_adapter(self, adapter: Adapter, path: str) -> None:
        for name, (a, b) in adapter.pairs.items():
            if name not in self._targets:
                raise BadWeights(path, name, "a weight of this model", "one it does not have")
            rows, columns = self._weights.shape(name)[-2:]
            if (b.shape[0], a.shape[1]) != (rows, columns):
                raise BadWeights(path, name, f"a delta of {rows} x {columns}", f"{b.shape[0]} x {a.shape[1]}")


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_dimensions(config: ModelConfig, lanes: int) -> None:
    """Unsupported when the kernels cannot run such a network; the torch path can."""
    if config.head_dim % lanes or config.head_dim > MAX_HEAD_DIM:
        raise Unsupported(
            f"kernels: expected a head dimension up to {MAX_HEAD_DIM}, a multiple of {lanes}, found {config.head_dim}"
        )


def _expert_shape(config: ModelConfig) -> ExpertShape | None:
    if not config.num_experts:
        return None
    return ExpertShape(config.num_experts, config.experts_per_token, config.hidden_size, config.expert_ffn_size)


def _check_options(block_size: int, kv_type: str, activation_bits: int) -> None:
    if block_size % KEY_GROUP or block_size <= 0:
        raise BadConfig("block_size", f"expected a multiple of {KEY_GROUP}, found {block_size}")
    if kv_type not in KV_TYPES:
        raise BadConfig("kv_type", f"expected f32, f16 or int8, found {kv_type!r}")
    if activation_bits not in (8, 16):
        raise BadConfig("activation_bits", f"expected 8 or 16, found {activation_bits}")
