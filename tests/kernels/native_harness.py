"""Small programs run by the C kernels, and the same arithmetic in float64: shared by the kernels' tests."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shoal.kernels import build, native
from shoal.kernels.executor import CacheShape, Executor, KvType
from shoal.kernels.program import Code, Node, Recorder, lower

ISAS = build.available_isas()
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20),
          "Q5_0": (32, 22), "Q5_1": (32, 24), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210)}  # fmt: skip


@dataclass
class Step:
    """The arrays of one step; only what the program at hand reads needs to be given."""

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    query_start: np.ndarray
    context_lens: np.ndarray
    block_tables: np.ndarray
    adapters: np.ndarray
    output_rows: np.ndarray
    tap_layer: int = -1
    rope_positions: np.ndarray | None = None


def rows_step(rows: int) -> Step:
    """`rows` independent rows, all of them outputs; token i is i."""
    each = np.arange(rows, dtype=np.int32)
    return Step(
        tokens=each, positions=each, slots=each, query_start=np.array([0, rows], np.int32),
        context_lens=np.array([rows], np.int32), block_tables=np.zeros((1, 1), np.int32),
        adapters=np.full(1, -1, np.int32), output_rows=each,
    )  # fmt: skip


def random_weights(storage: str, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Random codes with scales of about 0.01: uint8 (rows, bytes per row)."""
    block, width = BLOCKS[storage]
    if storage == "F32":
        return rng.standard_normal((rows, columns)).astype(np.float32).view(np.uint8)
    if storage == "F16":
        return rng.standard_normal((rows, columns)).astype(np.float16).view(np.uint8)
    if storage == "BF16":
        values = rng.standard_normal((rows, columns)).astype(np.float32).view(np.uint32) >> 16
        return values.astype(np.uint16).view(np.uint8)
    data = rng.integers(0, 256, (rows, columns // block, width), dtype=np.uint8)
    scales = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
              "Q6_K": [208]}[storage]  # fmt: skip
    for at in scales:
        values = (rng.uniform(0.002, 0.02, data.shape[:2]) * rng.choice([-1, 1], data.shape[:2])).astype(np.float16)
        data[..., at : at + 2] = values[..., None].view(np.uint8)
    return data.reshape(rows, -1)


class Weights:
    """Packed matrices and vectors by address, kept alive."""

    def __init__(self, library: native.Library) -> None:
        self.library = library
        self.kept: list[object] = []

    def matrix(self, storage: str, data: np.ndarray, rows: int, columns: int) -> int:
        matrix, memory = native.pack(self.library, storage, data, rows, columns)
        self.kept += [matrix, memory]
        return ctypes.addressof(matrix)

    def floats(self, values: np.ndarray) -> int:
        values = np.ascontiguousarray(values, np.float32)
        return self.matrix("F32", values.view(np.uint8), *values.shape)

    def vector(self, values: np.ndarray) -> int:
        kept = np.ascontiguousarray(values, np.float32)
        self.kept.append(kept)
        return int(kept.ctypes.data)


def executor(
    library: native.Library, recorder: Recorder, result: int, cache: CacheShape | None = None, threads: int = 2
) -> Executor:
    shape = cache or CacheShape(1, 1, 16, 1, 16, "f32")
    return Executor(library, lower(recorder, result), shape, threads=threads, hidden_size=1)


class AttentionCase(Protocol):
    """Dimensions of one attention; window and softcap 0: none."""

    heads: int
    kv_heads: int
    dim: int
    block_size: int
    window: int
    softcap: float
    kv_type: KvType


def attention(
    library: native.Library, case: AttentionCase, tables: list[np.ndarray], num_blocks: int
) -> tuple[Weights, Executor]:
    """A program whose row r has row r of `tables` as query, key and value, in layer 1 of 2; keep the weights alive."""
    weights, recorder = Weights(library), Recorder()
    values = [recorder.value(table.shape[1]) for table in tables]
    for value, table in zip(values, tables, strict=True):
        address = weights.floats(table)
        recorder.add(Node(Code.EMBED, (), (value,), table.shape[1], weights=(address,), f=1.0))
    out = recorder.value(tables[0].shape[1])
    recorder.add(Node(Code.WRITE_KV, (values[1], values[2]), (), tables[1].shape[1], layer=1))
    recorder.add(Node(Code.ATTENTION, (values[0],), (out,), tables[0].shape[1], heads=case.heads, layer=1,
                      count=case.window, f=case.dim**-0.5, g=case.softcap))  # fmt: skip
    gathered = recorder.value(tables[0].shape[1])
    recorder.add(Node(Code.GATHER, (out,), (gathered,), tables[0].shape[1], on_outputs=True))
    cache = CacheShape(2, num_blocks, case.block_size, case.kv_heads, case.dim, case.kv_type)
    return weights, executor(library, recorder, gathered, cache)


def product(
    library: native.Library, storage: str, data: np.ndarray, x: np.ndarray, rows: int, threads: int = 2
) -> np.ndarray:
    """x W^T by the kernels: x (m, columns) float32, W `rows` x columns as stored."""
    weights, recorder = Weights(library), Recorder()
    columns = x.shape[1]
    source, out = recorder.value(columns), recorder.value(rows)
    recorder.add(Node(Code.EMBED, (), (source,), columns, weights=(weights.floats(x),), f=1.0))
    matrix = weights.matrix(storage, data, rows, columns)
    recorder.add(
        Node(Code.PRODUCTS, (source,), (out,), columns, count=1, is_quantized=BLOCKS[storage][0] > 1, adds=(False,),
             targets=(0,), weights=(matrix,), biases=(0,))
    )  # fmt: skip
    runner = executor(library, recorder, out, threads=threads)
    try:
        return runner.run(rows_step(len(x))).copy()
    finally:
        runner.close()


def quantized(x: np.ndarray) -> np.ndarray:
    """Activations as the kernels see them: int8 per 32 columns, largest magnitude 127, nearest even, blocks below the
    normal floats are zero; back in float64."""
    blocks = x.astype(np.float32).reshape(len(x), -1, 32)
    scale = np.abs(blocks).max(2, keepdims=True) / np.float32(127)
    scale[scale < 2.0**-126] = 0
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    codes = np.rint(blocks.astype(np.float64) * inverse)
    return (codes * scale.astype(np.float64)).reshape(x.shape)


def as_cached(x: np.ndarray, kv_type: KvType) -> np.ndarray:
    """What the cache keeps of x (..., head_dim) float32, in float64.

    int8: each head's largest magnitude is 127, nearest even; scales below the normal floats are zero.
    """
    if kv_type != "int8":
        return x.astype(np.float16 if kv_type == "f16" else np.float32).astype(np.float64)
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    scale[scale < 2.0**-126] = 0
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    return np.rint(x.astype(np.float64) * inverse) * scale.astype(np.float64)
