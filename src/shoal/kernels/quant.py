"""Block-quantised storage types: bytes to float32 and back, in numpy. The slow twin of the C kernels.

A row of `columns` elements is a run of blocks, each a float16 scale (and offset) and packed small integers, as ggml
lays them out (`ggml-common.h`, `ggml-quants.c`). Results are bit-exact with ggml's reference functions.

Rules that stay true in this file:
- one block of `storage` holds `BLOCK[storage]` = (elements, bytes), and a row is a whole number of blocks;
- arithmetic is float32 throughout, in the order ggml does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

Storage = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]

BLOCK: dict[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20),
    "Q5_0": (32, 22), "Q5_1": (32, 24), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
}  # fmt: skip
"""Elements and bytes of one block of each storage type (ggml's definitions)."""


def row_bytes(storage: Storage, columns: int) -> int:
    """Bytes of one row. ValueError unless `columns` is a whole number of blocks."""
    elements, size = BLOCK[storage]
    if columns % elements:
        raise ValueError(f"{storage} rows need a multiple of {elements} columns, found {columns}")
    return columns // elements * size


def dequantize(storage: Storage, data: np.ndarray, columns: int) -> Floats:
    """float32 (rows, columns) from uint8 bytes, any shape whose size is a whole number of rows.

    ValueError when the byte count does not fit `columns`.
    """
    size = row_bytes(storage, columns)
    if size == 0 or data.size % size:
        raise ValueError(f"{storage} rows of {columns} columns are {size} bytes each, found {data.size} bytes")
    blocks = np.ascontiguousarray(data).reshape(-1, BLOCK[storage][1])
    with np.errstate(invalid="ignore", over="ignore"):  # infinite scales in a corrupt file stay what they are
        return _DEQUANTIZE[storage](blocks).reshape(-1, columns)


def _half(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` of each block, as float32 (blocks, 1)."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32)


def _fields(packed: Bytes, group: int, bits: int) -> Bytes:
    """Split bytes into `bits`-wide fields: each `group` of bytes gives its lowest fields first. (blocks, fields)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(1, 1, -1, 1)
    parts = (packed.reshape(len(packed), -1, 1, group) >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(len(packed), -1)


def _bits(packed: Bytes) -> Bytes:
    """32 flags from each block's four little-endian bytes, uint8 (blocks, 32)."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _f32(blocks: Bytes) -> Floats:
    return blocks.view(np.float32).copy()


def _f16(blocks: Bytes) -> Floats:
    return blocks.view(np.float16).astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (blocks.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _q8_0(blocks: Bytes) -> Floats:  # d, 32 x int8
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _half(blocks, 0)


def _q4_0(blocks: Bytes) -> Floats:  # d, 32 x 4 bits
    return _half(blocks, 0) * (_fields(blocks[:, 2:], 16, 4).astype(np.float32) - np.float32(8))


def _q4_1(blocks: Bytes) -> Floats:  # d, m, 32 x 4 bits
    return _half(blocks, 0) * _fields(blocks[:, 4:], 16, 4).astype(np.float32) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:  # d, 32 fifth bits, 32 x 4 bits
    values = _fields(blocks[:, 6:], 16, 4) | (_bits(blocks[:, 2:6]) << np.uint8(4))
    return _half(blocks, 0) * (values.astype(np.float32) - np.float32(16))


def _q5_1(blocks: Bytes) -> Floats:  # d, m, 32 fifth bits, 32 x 4 bits
    values = _fields(blocks[:, 8:], 16, 4) | (_bits(blocks[:, 4:8]) << np.uint8(4))
    return _half(blocks, 0) * values.astype(np.float32) + _half(blocks, 2)


def _scales_and_mins(packed: Bytes) -> tuple[Floats, Floats]:
    """Eight 6-bit scales and eight 6-bit minima from 12 bytes (`get_scale_min_k4`), float32 (blocks, 8) each.

    Bytes 0-3 and 4-7 hold four scales and four minima in their low six bits; the other four of each have their low
    four bits in bytes 8-11 and their high two in the top bits of bytes 0-7.
    """
    low, mid, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 2) & 48)], axis=1)
    minima = np.concatenate([mid & 63, (high >> 4) | ((mid >> 2) & 48)], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _scaled(blocks: Bytes, values: Bytes) -> Floats:
    """Q4_K and Q5_K: eight groups of 32, each with its own scale and minimum."""
    scales, minima = _scales_and_mins(blocks[:, 4:16])
    scale = (_half(blocks, 0) * scales)[:, :, None]
    minimum = (_half(blocks, 2) * minima)[:, :, None]
    return scale * values.reshape(-1, 8, 32).astype(np.float32) - minimum


def _q4_k(blocks: Bytes) -> Floats:  # d, dmin, 12 bytes of scales, 256 x 4 bits
    return _scaled(blocks, _fields(blocks[:, 16:], 32, 4))


def _q5_k(blocks: Bytes) -> Floats:  # d, dmin, 12 bytes of scales, 256 fifth bits, 256 x 4 bits
    return _scaled(blocks, _fields(blocks[:, 48:], 32, 4) | (_fields(blocks[:, 16:48], 32, 1) << np.uint8(4)))


def _q6_k(blocks: Bytes) -> Floats:  # 256 x 4 low bits, 256 x 2 high bits, 16 x int8 scales, d
    values = _fields(blocks[:, :128], 64, 4) | (_fields(blocks[:, 128:192], 32, 2) << np.uint8(4))
    scales = _half(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return scales[:, :, None] * (values.reshape(-1, 16, 16).astype(np.float32) - np.float32(32))


_DEQUANTIZE: dict[str, Callable[[Bytes], Floats]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16, "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0,
    "Q5_1": _q5_1, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip


# ---- quantising: ggml's reference functions, round to nearest --------------------------------------------------


def _blocks(values: np.ndarray) -> Floats:
    if values.shape[-1] % 32:
        raise ValueError(f"rows need a multiple of 32 columns, found {values.shape[-1]}")
    return np.ascontiguousarray(values, np.float32).reshape(-1, 32)


def _inverse(scale: Floats) -> Floats:
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _pack(values: np.ndarray, header: list[Floats], quants: Bytes) -> Bytes:
    """Header halves, then the bytes, as rows of `values`: uint8 (..., bytes per row)."""
    halves = [part.astype(np.float16).view(np.uint8) for part in header]
    return np.concatenate([*halves, quants], axis=1).reshape(*values.shape[:-1], -1)


def _nibbles(levels: Floats) -> Bytes:
    """Element i in the low half of byte i, element i + 16 in its high half: uint8 (blocks, 16)."""
    clipped: Bytes = np.trunc(levels).astype(np.uint8).clip(0, 15)
    return clipped[:, :16] | (clipped[:, 16:] << np.uint8(4))


def quantize_q8_0(values: np.ndarray) -> Bytes:
    """uint8 (..., bytes per row) from float (..., columns): scale = max|x| / 127, halves rounded away from zero."""
    blocks = _blocks(values)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    size = np.abs(scaled)
    whole = np.floor(size)
    levels = np.sign(scaled) * (whole + np.floor(2 * (size - whole)))
    return _pack(values, [scale], levels.astype(np.int8).view(np.uint8))


def quantize_q4_0(values: np.ndarray) -> Bytes:
    """uint8 (..., bytes per row): the element of largest magnitude becomes exactly -8."""
    blocks = _blocks(values)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    scale = extreme / np.float32(-8)
    return _pack(values, [scale], _nibbles(blocks * _inverse(scale) + np.float32(8.5)))


def quantize_q4_1(values: np.ndarray) -> Bytes:
    """uint8 (..., bytes per row): sixteen levels from the block's minimum to its maximum."""
    blocks = _blocks(values)
    low = blocks.min(axis=1, keepdims=True)
    scale = (blocks.max(axis=1, keepdims=True) - low) / np.float32(15)
    return _pack(values, [scale, low], _nibbles((blocks - low) * _inverse(scale) + np.float32(0.5)))
