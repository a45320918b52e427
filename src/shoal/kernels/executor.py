"""Runs a lowered program: owns its buffers, its cache of keys and values, its threads and its adapter table.

Rules that stay true in this file:
- every array C reads is an attribute of this object, so it outlives the call;
- buffers grow before a step, never during one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from shoal.kernels.native import BatchStruct, Library, Lora, Op, Pool, Probe, ProgramStruct, aligned
from shoal.kernels.program import Code, Lowered


class Rows(Protocol):
    """The arrays of one step, as `models.batch.Batch` describes them; every one is int32."""

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    query_start: np.ndarray
    context_lens: np.ndarray
    block_tables: np.ndarray
    adapters: np.ndarray
    output_rows: np.ndarray
    tap_layer: int
    rope_positions: np.ndarray | None
    inputs: np.ndarray | None


KvType = Literal["f32", "f16", "int8"]
KV_TYPES: tuple[KvType, ...] = ("f32", "f16", "int8")
"""In the order of the C enum."""


def head_bytes(kv_type: KvType, head_dim: int) -> int:
    """Of the key, or the value, of one position and head."""
    return {"f32": 4 * head_dim, "f16": 2 * head_dim, "int8": head_dim + 4}[kv_type]


@dataclass(frozen=True, slots=True)
class CacheShape:
    """num_blocks blocks of block_size positions in each of num_layers layers.

    kv_type  of the elements; int8 has a float for each position and head beside them, which multiplies its elements.
    """

    num_layers: int
    num_blocks: int
    block_size: int
    num_kv_heads: int
    head_dim: int
    kv_type: KvType

    @property
    def layer_bytes(self) -> int:
        """Of the keys, and again of the values."""
        return self.num_blocks * self.block_bytes

    @property
    def block_bytes(self) -> int:
        """Of one block's keys in one layer, and again of its values."""
        return self.block_size * self.num_kv_heads * head_bytes(self.kv_type, self.head_dim)


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """A LoRA adapter as C reads it. pairs: target number -> A (rank, in), B transposed (rank, out), float32.

    The delta of a target is scale * B A.
    """

    scale: float
    pairs: dict[int, tuple[np.ndarray, np.ndarray]]


def pack_adapter(scale: float, pairs: dict[int, tuple[np.ndarray, np.ndarray]]) -> PackedAdapter:
    """From target number -> A (rank, in), B (out, rank). Touches no executor, so any thread may do it."""
    packed = {
        target: (np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b.T, np.float32))
        for target, (a, b) in pairs.items()
    }
    return PackedAdapter(scale, packed)


@dataclass(frozen=True, slots=True)
class ExpertShape:
    num_experts: int
    per_token: int
    hidden_size: int
    ffn_size: int


class Executor:
    """One program on one pool of threads. Not thread-safe: one caller, one step at a time.

    hidden_size      elements per row of a tap; num_targets  products an adapter may change.
    activation_bits  8, or 16: quantised products see two int8 terms of each activation instead of one.
    """

    def __init__(
        self, library: Library, lowered: Lowered, cache: CacheShape, *, threads: int, hidden_size: int,
        num_targets: int = 0, max_adapters: int = 0, experts: ExpertShape | None = None, activation_bits: int = 8,
    ) -> None:  # fmt: skip
        self._library, self._lowered, self._cache, self._experts = library, lowered, cache, experts
        self._hidden_size, self._num_targets, self._terms = hidden_size, num_targets, activation_bits // 8
        self._pool = Pool(library, threads)
        self._ops = (Op * len(lowered.ops))(*lowered.ops)
        self._columns = np.array(lowered.columns, np.int32)
        self._keys, self._values = (aligned(cache.layer_bytes * cache.num_layers) for _ in "kv")
        self._loras = (Lora * max(max_adapters * num_targets, 1))()
        self._adapters: dict[int, PackedAdapter] = {}
        self._scratch = aligned(library.scratch_bytes * threads)
        self._batch, self._program = BatchStruct(), ProgramStruct()
        self._arrays: dict[str, np.ndarray] = {}
        self._addresses: dict[str, int] = {}
        self._heads = max((op.heads for op in lowered.ops if op.code == Code.ATTENTION), default=0)
        self._partials = aligned(0)
        self._rows = self._outputs = self._tapped = self._ranked = 0
        self._point()
        self._reserve(64, 8)

    @property
    def threads(self) -> int:
        return self._pool.threads

    @property
    def cache(self) -> CacheShape:
        return self._cache

    @property
    def library(self) -> Library:
        return self._library

    @property
    def probe(self) -> Probe:
        """What steps report or leave out; `kernels.approximation` alone sets it, and clears it again."""
        found: Probe = self._program.probe
        return found

    @property
    def ops(self) -> ctypes.Array[Op]:
        """The program, as recorded."""
        return self._ops

    def use(self, ops: ctypes.Array[Op]) -> None:
        """Run these records from the next step on: `ops`, or a copy that differs in weights and their sizes."""
        self._program.ops = ctypes.addressof(ops)

    @property
    def adapter_slots(self) -> frozenset[int]:
        """Slots that hold an adapter."""
        return frozenset(self._adapters)

    def run(self, rows: Rows) -> np.ndarray:
        """One step; the result's rows (output_rows, columns) in float32, valid until the next step."""
        self._reserve(len(rows.tokens), len(rows.output_rows))
        self._fill(rows)
        if self._lowered.given >= 0:
            self._give(rows)
        self._library.c.shoal_run(self._pool.handle, ctypes.byref(self._program))
        outputs = self._ranked = len(rows.output_rows)
        self._tapped = outputs if rows.tap_layer >= 0 else 0
        columns = self._lowered.columns[self._lowered.result]
        result: np.ndarray = self._buffers[self._lowered.result][: outputs * columns]
        return result.reshape(outputs, columns)

    def taps(self) -> np.ndarray:
        """float32 (output_rows, hidden): the residual stream the last step's `tap_layer` asked for; else no rows."""
        return self._tap[: self._tapped * self._hidden_size].reshape(self._tapped, self._hidden_size)

    def best(self) -> np.ndarray:
        """int32 (output_rows,): where each row of the last result has its first largest element, -1 if it is odd.

        Odd is a row with an element that is not finite.
        """
        return self._best[: self._ranked]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks of every layer, (source, destination) each, in order."""
        flat = np.array(pairs, np.int32).reshape(-1, 2)
        kv = ctypes.byref(self._program.kv)
        cache = self._cache
        self._library.c.shoal_copy_blocks(kv, cache.num_layers, flat.ctypes.data, len(flat))

    def keep_positions(self, source: np.ndarray, target: np.ndarray, kept: np.ndarray) -> None:
        """Copy chosen keys and values to the front of other blocks: position i of `target` gets kept[..., i].

        source, target  int32 block tables without a block in common; kept  int32 (layers, kv heads, count).
        """
        tables = [np.ascontiguousarray(table, np.int32) for table in (source, target, kept)]
        self._library.c.shoal_keep_positions(
            ctypes.byref(self._program.kv), self._cache.num_layers, *(table.ctypes.data for table in tables),
            kept.shape[2],
        )  # fmt: skip

    def set_adapter(self, slot: int, adapter: PackedAdapter) -> None:
        """Fill a slot: pointers alone move, so it takes microseconds."""
        self.drop_adapter(slot)
        self._adapters[slot] = adapter
        for target, (down, up) in adapter.pairs.items():
            entry = self._loras[slot * self._num_targets + target]
            entry.a, entry.b, entry.rank, entry.scale = down.ctypes.data, up.ctypes.data, len(down), adapter.scale

    def drop_adapter(self, slot: int) -> None:
        """Empty a slot; nothing happens when it is empty."""
        if self._adapters.pop(slot, None) is not None:
            for target in range(self._num_targets):
                self._loras[slot * self._num_targets + target] = Lora()

    def close(self) -> None:
        """Stop the threads. Closing twice is harmless; a step afterwards is not allowed."""
        self._pool.close()

    def _point(self) -> None:
        """Everything in the C structures that never changes."""
        program, kv, cache = self._program, self._program.kv, self._cache
        kv.block_size, kv.kv_heads, kv.head_dim = cache.block_size, cache.num_kv_heads, cache.head_dim
        kv.type, kv.layer_bytes, kv.block_bytes = KV_TYPES.index(cache.kv_type), cache.layer_bytes, cache.block_bytes
        kv.k, kv.v = self._keys.ctypes.data, self._values.ctypes.data
        program.ops, program.num_ops = ctypes.addressof(self._ops), len(self._ops)
        program.num_targets, program.loras = self._num_targets, ctypes.addressof(self._loras)
        program.columns, program.scratch = self._columns.ctypes.data, self._scratch.ctypes.data
        program.b = ctypes.addressof(self._batch)
        program.probe.skip_from, program.result = -1, self._lowered.result
        for index, op in enumerate(op for op in self._ops if op.code == Code.GATED):
            op.count = index

    def _reserve(self, rows: int, outputs: int) -> None:
        """Make room for a step of `rows` rows and `outputs` output rows."""
        if rows <= self._rows and outputs <= self._outputs:
            return
        self._rows, self._outputs = max(rows, self._rows), max(outputs, self._outputs)
        rows, narrow, columns = max(self._rows, self._outputs), self._lowered.narrow, self._lowered.columns
        self._buffers = [
            aligned(4 * width * (self._outputs if slot in narrow else rows)).view(np.float32)
            for slot, width in enumerate(columns)
        ]
        widest = max((width for slot, width in enumerate(columns) if slot not in narrow), default=0)
        term = rows * (widest // 32 + 1) * self._library.block8_bytes
        self._quantized = [aligned(term) for _ in range(self._terms)]
        self._pointers = np.array([buffer.ctypes.data for buffer in self._buffers], np.uint64)
        self._tap = aligned(4 * self._outputs * self._hidden_size).view(np.float32)
        self._best = aligned(4 * self._outputs).view(np.int32)
        program = self._program
        program.best = self._best.ctypes.data
        program.buffers, program.a = self._pointers.ctypes.data, self._quantized[0].ctypes.data
        program.a2 = self._quantized[1].ctypes.data if self._terms == 2 else None
        program.tap = self._tap.ctypes.data
        if self._experts is not None:
            self._reserve_experts(rows, self._experts)

    def _reserve_experts(self, rows: int, shape: ExpertShape) -> None:
        picked, blocks = rows * shape.per_token, max(shape.hidden_size, shape.ffn_size) // 32 + 1
        sizes = {
            "chosen": 4 * picked, "place": 4 * picked, "weight": 4 * picked, "starts": 8 * (shape.num_experts + 2),
            "a": picked * blocks * self._library.block8_bytes,
            "a2": picked * blocks * self._library.block8_bytes * (self._terms - 1), "x": 4 * picked * shape.hidden_size,
            "gate": 4 * picked * shape.ffn_size, "up": 4 * picked * shape.ffn_size,
            "down": 4 * picked * shape.hidden_size, "jobs": 2 * shape.num_experts * self._library.product_bytes,
        }  # fmt: skip
        self._expert_memory = {name: aligned(size) for name, size in sizes.items()}
        for name, memory in self._expert_memory.items():
            setattr(self._program.experts, name, memory.ctypes.data)

    def _fill(self, rows: Rows) -> None:
        """Copy the step's arrays to where C looks for them: cheaper than telling it where they are."""
        struct = self._batch
        arrays = {
            "tokens": rows.tokens, "positions": rows.positions, "slots": rows.slots, "query_start": rows.query_start,
            "context_lens": rows.context_lens, "block_tables": rows.block_tables.reshape(-1),
            "output_rows": rows.output_rows,
        }  # fmt: skip
        struct.has_adapters = bool(self._adapters) and max(rows.adapters.tolist()) >= 0
        if struct.has_adapters:
            arrays["adapters"] = np.repeat(rows.adapters, np.diff(rows.query_start))
        if rows.rope_positions is not None:
            arrays["rope_positions"] = rows.rope_positions
        for name, array in arrays.items():
            memory = self._arrays.get(name)
            if memory is None or len(memory) < len(array):
                memory = self._arrays[name] = np.zeros(2 * len(array) + 64, np.int32)
                self._addresses[name] = memory.ctypes.data
                setattr(struct, name, memory.ctypes.data)
            memory[: len(array)] = array
        turned = "positions" if rows.rope_positions is None else "rope_positions"
        struct.rope_positions = self._addresses[turned]
        struct.rows, struct.seqs, struct.outputs = len(rows.tokens), len(rows.context_lens), len(rows.output_rows)
        struct.max_blocks, struct.tap_layer = rows.block_tables.shape[1], rows.tap_layer
        self._fill_partials()

    def _give(self, rows: Rows) -> None:
        """Put the step's `inputs` where the program looks for the value that nothing in it writes."""
        width = self._lowered.columns[self._lowered.given]
        if rows.inputs is None or rows.inputs.shape != (len(rows.tokens), width):
            found = None if rows.inputs is None else rows.inputs.shape
            raise ValueError(f"expected inputs of shape {(len(rows.tokens), width)}, found {found}")
        self._buffers[self._lowered.given][: rows.inputs.size] = rows.inputs.reshape(-1)

    def _fill_partials(self) -> None:
        """Room for the sums of each segment of keys, where a step of few rows may share segments out."""
        struct, cache = self._batch, self._cache
        struct.segments = -(-struct.max_blocks * cache.block_size // self._library.segment_keys)
        if struct.rows > self._library.split_rows or struct.segments == 1:
            return
        size = 4 * struct.rows * self._heads * struct.segments * (cache.head_dim + 2)
        if size > len(self._partials):
            self._partials = aligned(2 * size)
            struct.partials = self._partials.ctypes.data
