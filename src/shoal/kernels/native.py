"""The C library through ctypes: its structures, its functions, and memory aligned for its vectors."""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from shoal.core.errors import LocalError, Unsupported
from shoal.kernels import build

STORAGES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
"""Storage types in the order of the C enum."""


class Matrix(c.Structure):
    """A packed matrix: csrc/weights.c."""

    _fields_ = (
        ("data", c.c_void_p), ("rows", c.c_int32), ("columns", c.c_int32), ("pack", c.c_int32), ("scale", c.c_float),
    )  # fmt: skip


class Op(c.Structure):
    """One operation: csrc/program.c; the meaning of each field by code is in kernels/program.py."""

    _fields_ = (
        ("code", c.c_int32), ("in1", c.c_int32), ("in2", c.c_int32), ("out", c.c_int32), ("columns", c.c_int32),
        ("heads", c.c_int32), ("flags", c.c_int32), ("layer", c.c_int32), ("count", c.c_int32),
        ("on_outputs", c.c_int32), ("outs", c.c_int32 * 3), ("adds", c.c_int32 * 3), ("targets", c.c_int32 * 3),
        ("f", c.c_float), ("g", c.c_float), ("p", c.c_void_p), ("p2", c.c_void_p),
        ("weights", c.c_void_p * 3), ("biases", c.c_void_p * 3),
    )  # fmt: skip


class Cache(c.Structure):
    _fields_ = (
        ("k", c.c_void_p), ("v", c.c_void_p), ("block_size", c.c_int32), ("kv_heads", c.c_int32),
        ("head_dim", c.c_int32), ("type", c.c_int32), ("layer_bytes", c.c_int64), ("block_bytes", c.c_int64),
    )  # fmt: skip


class BatchStruct(c.Structure):
    _fields_ = (
        ("tokens", c.c_void_p), ("positions", c.c_void_p), ("slots", c.c_void_p), ("query_start", c.c_void_p),
        ("context_lens", c.c_void_p), ("block_tables", c.c_void_p), ("adapters", c.c_void_p),
        ("output_rows", c.c_void_p), ("rope_positions", c.c_void_p), ("partials", c.c_void_p),
        ("rows", c.c_int32), ("seqs", c.c_int32), ("max_blocks", c.c_int32), ("outputs", c.c_int32),
        ("tap_layer", c.c_int32), ("has_adapters", c.c_int32), ("segments", c.c_int32),
    )  # fmt: skip


class Lora(c.Structure):
    _fields_ = (("a", c.c_void_p), ("b", c.c_void_p), ("rank", c.c_int32), ("scale", c.c_float))


class ExpertScratch(c.Structure):
    _fields_ = tuple(
        (name, c.c_void_p)
        for name in ("chosen", "place", "starts", "weight", "a", "a2", "x", "gate", "up", "down", "jobs")
    )


class Probe(c.Structure):
    """What a step reports or leaves out for approximate inference: csrc/approx.c."""

    _fields_ = (
        ("importance", c.c_void_p), ("scores", c.c_void_p), ("row_weights", c.c_void_p), ("activations", c.c_void_p),
        ("keys", c.c_int32), ("is_mean", c.c_int32), ("skip_from", c.c_int32), ("skip_to", c.c_int32),
    )  # fmt: skip


class ProgramStruct(c.Structure):
    _fields_ = (
        ("ops", c.c_void_p), ("num_ops", c.c_int32), ("num_targets", c.c_int32), ("buffers", c.c_void_p),
        ("columns", c.c_void_p), ("a", c.c_void_p), ("a2", c.c_void_p), ("tap", c.c_void_p), ("loras", c.c_void_p),
        ("kv", Cache),
        ("b", c.c_void_p), ("scratch", c.c_void_p), ("experts", ExpertScratch), ("probe", Probe),
        ("result", c.c_int32), ("best", c.c_void_p),
    )  # fmt: skip


class Library:
    """The loaded library. `lanes` is its vector width; `sizeof` gives C's own idea of its private structures.

    segment_keys  cached keys that have sums of their own; split_rows  the most rows of a step whose segments go apart.
    """

    def __init__(self, path: Path) -> None:
        lib = c.CDLL(str(path))
        lib.shoal_pool_create.restype = c.c_void_p
        lib.shoal_pool_create.argtypes = (c.c_int,)
        lib.shoal_pool_destroy.argtypes = (c.c_void_p,)
        lib.shoal_packed_bytes.restype = c.c_int64
        lib.shoal_packed_bytes.argtypes = (c.c_int, c.c_int, c.c_int)
        lib.shoal_pack.argtypes = (c.c_int, c.c_void_p, c.c_int, c.c_int, c.c_void_p, c.POINTER(Matrix))
        lib.shoal_unpack_row.argtypes = (c.POINTER(Matrix), c.c_int, c.c_void_p)
        lib.shoal_quantize_rows.argtypes = (c.c_void_p, c.c_int, c.c_int, c.c_void_p, c.c_void_p)
        lib.shoal_run.argtypes = (c.c_void_p, c.POINTER(ProgramStruct))
        lib.shoal_copy_blocks.argtypes = (c.POINTER(Cache), c.c_int, c.c_void_p, c.c_int)
        lib.shoal_keep_positions.argtypes = (
            c.POINTER(Cache), c.c_int, c.c_void_p, c.c_void_p, c.c_void_p, c.c_int,
        )  # fmt: skip
        lib.shoal_sizeof.restype = c.c_int64
        self.c = lib
        for index, struct in ((0, Op), (1, ProgramStruct), (2, BatchStruct), (3, Matrix), (7, Cache), (8, Lora)):
            if lib.shoal_sizeof(index) != c.sizeof(struct):
                raise LocalError(
                    f"{path}: {struct.__name__}: expected {c.sizeof(struct)} bytes, found {lib.shoal_sizeof(index)}"
                )
        self.scratch_bytes = int(lib.shoal_sizeof(4))
        self.block8_bytes = int(lib.shoal_sizeof(5))
        self.product_bytes = int(lib.shoal_sizeof(6))
        self.segment_keys, self.split_rows = int(lib.shoal_sizeof(9)), int(lib.shoal_sizeof(10))
        self.lanes = int(lib.shoal_sizeof(99))


@cache
def load(isa: str | None = None, cache_dir: Path | None = None) -> Library:
    """The library for `isa`, built if need be. Raises Unsupported as `build.library_path` does."""
    path = build.library_path(isa, cache_dir)
    try:
        return Library(path)
    except OSError as error:
        raise Unsupported(f"kernels: {path} could not be loaded: {error}; delete it to have it rebuilt") from error


class Pool:
    """Worker threads; the calling thread is one of `threads`. Two pools do not disturb one another."""

    def __init__(self, library: Library, threads: int) -> None:
        self._library = library
        self.threads = threads
        self.handle = library.c.shoal_pool_create(threads)
        if not self.handle:
            raise LocalError(f"could not start {threads} threads")

    def close(self) -> None:
        if self.handle:
            self._library.c.shoal_pool_destroy(self.handle)
            self.handle = None


def aligned(size_bytes: int) -> np.ndarray:
    """Zeroed bytes that start on a cache line; pages are not touched until used."""
    raw = np.zeros(size_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size_bytes]


class Arena:
    """Memory for weights in large pieces, which the system backs with large pages; a piece lives as long as its parts.

    Weights stream from memory at every step: with small pages there is an address to translate every 4 KB.
    """

    PIECE = 32 << 20

    def __init__(self) -> None:
        self._left = aligned(0)

    def take(self, size_bytes: int) -> np.ndarray:
        """As `aligned`."""
        size = -(-size_bytes // 64) * 64
        if size > len(self._left):
            self._left = aligned(max(size, self.PIECE))
        taken, self._left = self._left[:size_bytes], self._left[size:]
        return taken


def pack(
    library: Library, storage: str, data: np.ndarray, rows: int, columns: int,
    allocate: Callable[[int], np.ndarray] = aligned,
) -> tuple[Matrix, np.ndarray]:  # fmt: skip
    """A matrix in the kernels' layout, and the memory it lies in (keep it alive), which is what `allocate` gives.

    data: uint8, rows x bytes per row, C-contiguous. Raises Unsupported for a shape the storage cannot have.
    """
    kind = STORAGES.index(storage)
    memory = allocate(int(library.c.shoal_packed_bytes(kind, rows, columns)))
    matrix = Matrix()
    source = np.ascontiguousarray(data)
    if library.c.shoal_pack(kind, source.ctypes.data, rows, columns, memory.ctypes.data, c.byref(matrix)):
        raise Unsupported(f"kernels: {storage} rows need whole blocks, found {columns} columns")
    return matrix, memory
