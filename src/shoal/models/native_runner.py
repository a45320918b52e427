"""Runs batches with the C kernels: one call per step, whatever the mix of prefill and decode.

Rules that stay true in this file:
- every array C reads is an attribute of an object that outlives the call;
- buffers grow before a step, never during one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from shoal.core.errors import BadConfig, BadWeights, LocalError, Unsupported
from shoal.kernels import native
from shoal.kernels.native import BatchStruct, Lora, Op, Pool, ProgramStruct, aligned
from shoal.kernels.program import lower
from shoal.models.batch import Batch
from shoal.models.config import ModelConfig
from shoal.models.families import family_forward
from shoal.models.lora import Adapter, read_adapter
from shoal.models.native_ops import NativeOps
from shoal.models.native_weights import NativeWeights

if TYPE_CHECKING:
    from shoal.models.checkpoint import Checkpoint

KEY_GROUP = 16
"""Keys the cache keeps side by side; a block is a whole number of these."""

MAX_HEAD_DIM = 256


class NativeRunner:
    """A network, its cache and its adapters on the CPU. Not thread-safe: one caller, one step at a time.

    num_blocks blocks of block_size positions each; adapter slots are 0 .. max_adapters - 1. `threads` None: every core.
    Raises Unsupported for a network the kernels cannot run (its text says which dimension), BadConfig for an option.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_blocks: int,
        block_size: int = 16,
        threads: int | None = None,
        kv_type: Literal["f16", "f32"] = "f16",
        max_adapters: int = 8,
        isa: str | None = None,
        kernel_cache: Path | None = None,
    ) -> None:
        self.block_size, self.num_blocks, self.max_adapters = block_size, num_blocks, max_adapters
        self._config = checkpoint.config
        self._library = native.load(isa, kernel_cache)
        _check_options(block_size, kv_type)
        check_dimensions(self._config, self._library.lanes)
        self._weights = NativeWeights(checkpoint.weights, self._library)
        positions = min(self._config.context_length, num_blocks * block_size)
        self._ops = NativeOps(self._config, self._weights, positions)
        result = family_forward(self._config)(self._ops, self._config)
        self._lowered = lower(self._ops.recorder, result)
        self._logits_buffer = self._lowered.slots[result]
        self._pool = Pool(self._library, threads or default_threads())
        self._loras = (Lora * (max_adapters * len(self._ops.targets)))()
        self._adapters: dict[int, list[np.ndarray]] = {}
        self._program = ProgramStruct()
        self._keep: dict[str, object] = {}
        self._make_program(kv_type)
        self._rows = self._outputs = 0
        self._reserve(64, 8)

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
    def threads(self) -> int:
        return self._pool.threads

    def run(self, batch: Batch) -> np.ndarray:
        """Fill the batch's cache slots and return float32 logits, (output_rows, vocab), valid until the next run.

        LocalError for an adapter slot that holds nothing.
        """
        outputs = len(batch.output_rows)
        self._reserve(batch.num_rows, outputs)
        adapters = np.repeat(batch.adapters, np.diff(batch.query_start)) if (batch.adapters >= 0).any() else None
        if adapters is not None and (missing := set(batch.adapters.tolist()) - {-1} - set(self._adapters)):
            raise LocalError(f"no adapter in slot {min(missing)}")
        self._fill(batch, adapters)
        self._library.c.shoal_run(self._pool.handle, ctypes.byref(self._program))
        self._tapped = outputs if batch.tap_layer >= 0 else 0
        logits: np.ndarray = self._buffers[self._logits_buffer][: outputs * self.vocab_size]
        return logits.reshape(outputs, self.vocab_size)

    def taps(self) -> np.ndarray:
        """float32 (output_rows, hidden): the residual stream the last batch's `tap_layer` asked for; else no rows."""
        return self._tap[: self._tapped * self.hidden_size].reshape(self._tapped, self.hidden_size)

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole cache blocks, (source, destination) each, in order."""
        flat = np.array(list(pairs), np.int32).reshape(-1, 2)
        if len(flat):
            kv = ctypes.byref(self._program.kv)
            self._library.c.shoal_copy_blocks(kv, self._config.num_layers, self.num_blocks, flat.ctypes.data, len(flat))

    def load_adapter(self, slot: int, path: str | Path) -> None:
        """Read a PEFT folder into a slot. BadWeights where it does not fit the network, Unsupported as `read_adapter`."""
        if not 0 <= slot < self.max_adapters:
            raise BadConfig("adapters", f"expected a slot below {self.max_adapters}, found {slot}")
        adapter = read_adapter(path)
        self._check_adapter(adapter, str(path))
        self.drop_adapter(slot)
        kept = self._adapters.setdefault(slot, [])
        for name, (a, b) in adapter.pairs.items():
            down, up = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b.T, np.float32)
            kept += [down, up]
            entry = self._loras[slot * len(self._ops.targets) + self._ops.targets[name]]
            entry.a, entry.b, entry.rank, entry.scale = down.ctypes.data, up.ctypes.data, len(down), adapter.scaling

    def drop_adapter(self, slot: int) -> None:
        """Empty a slot; nothing happens when it is empty."""
        for target in range(len(self._ops.targets)):
            self._loras[slot * len(self._ops.targets) + target] = Lora()
        self._adapters.pop(slot, None)

    def close(self) -> None:
        """Stop the threads. The runner cannot be used afterwards; closing twice is harmless."""
        self._pool.close()

    def _check_adapter(self, adapter: Adapter, path: str) -> None:
        for name, (a, b) in adapter.pairs.items():
            if name not in self._ops.targets:
                raise BadWeights(path, name, "a weight of this model", "one it does not have")
            rows, columns = self._weights.shape(name)[-2:]
            if (b.shape[0], a.shape[1]) != (rows, columns):
                raise BadWeights(path, name, f"a delta of {rows} x {columns}", f"{b.shape[0]} x {a.shape[1]}")

    def _make_program(self, kv_type: str) -> None:
        config, program = self._config, self._program
        per_block = self.block_size * config.num_kv_heads * config.head_dim * (2 if kv_type == "f16" else 4)
        kv = program.kv
        kv.block_size, kv.kv_heads, kv.head_dim = self.block_size, config.num_kv_heads, config.head_dim
        kv.is_half, kv.layer_bytes = kv_type == "f16", per_block * self.num_blocks
        self._keys, self._values = (aligned(kv.layer_bytes * config.num_layers) for _ in "kv")
        kv.k, kv.v = self._keys.ctypes.data, self._values.ctypes.data
        self._op_array = (Op * len(self._lowered.ops))(*self._lowered.ops)
        self._columns = np.array(self._lowered.columns, np.int32)
        self._scratch = aligned(self._library.scratch_bytes * self._pool.threads)
        self._batch = BatchStruct()
        program.ops, program.num_ops = ctypes.addressof(self._op_array), len(self._op_array)
        program.num_targets, program.loras = len(self._ops.targets), ctypes.addressof(self._loras)
        program.columns, program.scratch = self._columns.ctypes.data, self._scratch.ctypes.data
        program.b = ctypes.addressof(self._batch)

    def _reserve(self, rows: int, outputs: int) -> None:
        """Make room for a step of `rows` rows and `outputs` output rows."""
        if rows <= self._rows and outputs <= self._outputs:
            return
        self._rows, self._outputs = max(rows, self._rows), max(outputs, self._outputs)
        rows = max(self._rows, self._outputs)
        program = self._program
        widest = max(columns for slot, columns in enumerate(self._lowered.columns) if slot != self._logits_buffer)
        self._buffers = [
            aligned(4 * columns * (self._outputs if slot == self._logits_buffer else rows)).view(np.float32)
            for slot, columns in enumerate(self._lowered.columns)
        ]
        self._pointers = np.array([buffer.ctypes.data for buffer in self._buffers], np.uint64)
        self._quantized = aligned(rows * (widest // 32 + 1) * self._library.block8_bytes)
        self._tap = aligned(4 * self._outputs * self.hidden_size).view(np.float32)
        self._tapped = 0
        program.buffers, program.a, program.tap = (
            self._pointers.ctypes.data, self._quantized.ctypes.data, self._tap.ctypes.data,
        )  # fmt: skip
        if self._config.num_experts:
            self._reserve_experts(rows)

    def _reserve_experts(self, rows: int) -> None:
        config, scratch = self._config, self._program.experts
        picked, blocks = rows * config.experts_per_token, max(config.hidden_size, config.expert_ffn_size) // 32 + 1
        sizes = {
            "chosen": 4 * picked, "place": 4 * picked, "weight": 4 * picked, "starts": 8 * (config.num_experts + 2),
            "a": picked * blocks * self._library.block8_bytes, "x": 4 * picked * config.hidden_size,
            "gate": 4 * picked * config.expert_ffn_size, "up": 4 * picked * config.expert_ffn_size,
            "down": 4 * picked * config.hidden_size, "jobs": 2 * config.num_experts * self._library.product_bytes,
        }  # fmt: skip
        self._expert_memory = {name: aligned(size) for name, size in sizes.items()}
        for name, memory in self._expert_memory.items():
            setattr(scratch, name, memory.ctypes.data)

    def _fill(self, batch: Batch, adapters: np.ndarray | None) -> None:
        struct = self._batch
        tables = np.ascontiguousarray(batch.block_tables, np.int32)
        arrays = (batch.tokens, batch.positions, batch.slots, batch.query_start, batch.context_lens, tables, batch.output_rows)
        self._keep["arrays"] = kept = [np.ascontiguousarray(array, np.int32) for array in arrays]
        struct.tokens, struct.positions, struct.slots, struct.query_start, struct.context_lens = (
            array.ctypes.data for array in kept[:5]
        )
        struct.block_tables, struct.output_rows = kept[5].ctypes.data, kept[6].ctypes.data
        struct.rows, struct.seqs, struct.outputs = batch.num_rows, batch.num_seqs, len(batch.output_rows)
        struct.max_blocks, struct.tap_layer = tables.shape[1], batch.tap_layer
        struct.has_adapters = adapters is not None
        if adapters is not None:
            self._keep["adapters"] = rows = np.ascontiguousarray(adapters, np.int32)
            struct.adapters = rows.ctypes.data


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_dimensions(config: ModelConfig, lanes: int) -> None:
    """Unsupported when the kernels cannot run such a network; the torch path can."""
    if config.head_dim % lanes or config.head_dim > MAX_HEAD_DIM:
        raise Unsupported(
            f"kernels: expected a head dimension up to {MAX_HEAD_DIM}, a multiple of {lanes}, found {config.head_dim}"
        )


def _check_options(block_size: int, kv_type: str) -> None:
    if block_size % KEY_GROUP or block_size <= 0:
        raise BadConfig("block_size", f"expected a multiple of {KEY_GROUP}, found {block_size}")
    if kv_type not in ("f16", "f32"):
        raise BadConfig("kv_type", f"expected f16 or f32, found {kv_type!r}")
