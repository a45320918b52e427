"""GGUF files, versions 2 and 3, little-endian: metadata and tensors as views of the memory-mapped file.

The one place where a GGUF file's bytes become values. Layout (ggml's `gguf.md`): magic, version, counts, key-value
pairs, tensor descriptions, padding, tensor data.

Rules that stay true in this file:
- a length or offset is compared with the bytes that are left before it is used, so time and memory are bounded by the
  file's size;
- whatever the bytes, `read_gguf` gives a `GgufFile` or raises `BadWeights`;
- tensors lie inside the file, aligned, and no two overlap.

What this does not protect against: weights that are well-formed and wrong, and a file that another program cuts short
or rewrites while it is mapped.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from shoal.core.errors import BadWeights
from shoal.models.mapped import map_file
from shoal.models.tensors import BLOCK, Storage, Tensor

_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1", 10: "<u8", 11: "<i8",
            12: "<f8"}  # fmt: skip
_STRING, _ARRAY, _BOOL = 8, 9, 7

_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K",
          11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
          19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
          27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
          40: "NVFP4"}  # fmt: skip

_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_MAX_NESTING = 4  # arrays of arrays: no published file nests at all
_MIN_PAIR_BYTES = 8 + 4 + 1  # empty key, type, one-byte value
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8  # empty name, one dimension, type, offset


@dataclass(frozen=True, slots=True)
class GgufFile:
    """metadata: str, int, float, bool or (nested) list of these. tensors: views of the read-only mapping."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    size_bytes: int


def read_gguf(path: str | Path) -> GgufFile:
    """Parse the file. BadWeights for anything but a whole, little-endian GGUF 2 or 3 of supported tensor types."""
    cursor = _Cursor(str(path), map_file(path))
    num_tensors, num_pairs = _read_header(cursor)
    metadata = _read_metadata(cursor, num_pairs)
    described = [_read_description(cursor) for _ in range(num_tensors)]
    start = _align(cursor.position, _alignment(cursor, metadata))
    tensors = _place(cursor, described, start, _alignment(cursor, metadata))
    return GgufFile(Path(path), metadata, tensors, len(cursor.data))


_LENGTH = struct.Struct("<Q")


class _Cursor:
    """A position in the file; every read checks that the bytes are there."""

    def __init__(self, file: str, data: np.ndarray) -> None:
        self.file = file
        self.data = data
        self.view = data.data
        self.position = 0

    def fail(self, field: str, expected: str, found: object) -> NoReturn:
        raise BadWeights(self.file, field, expected, str(found))

    def need(self, size: int, field: str) -> int:
        """Step over `size` bytes; return where they start."""
        start = self.position
        if size > len(self.data) - start:
            left = len(self.data) - start
            self.fail(field, f"{size} more bytes at offset {start}", f"{left} (the file is cut short, or corrupt)")
        self.position = start + size
        return start

    def integer(self, code: str, field: str) -> int:
        return int(struct.unpack_from(f"<{code}", self.view, self.need(struct.calcsize(code), field))[0])

    def text(self, field: str) -> str:
        return self.texts(1, field)[0]

    def texts(self, count: int, field: str) -> list[str]:
        """`count` strings, each behind its length. A vocabulary has 100,000: so no call for each."""
        view, size_of, position, found = self.view, _LENGTH.unpack_from, self.position, list[str]()
        limit = len(self.data)
        try:
            for _ in range(count):
                start = position + 8
                end = start + size_of(view, position)[0]
                if end > limit:
                    self.position = start
                    self.need(end - start, field)
                found.append(str(view[start:end], "utf-8"))
                position = end
        except UnicodeDecodeError as error:
            self.fail(field, "UTF-8 text", error.reason)
        except struct.error:
            self.position = position
            self.need(8, f"{field} length")
        self.position = position
        return found


def _read_header(cursor: _Cursor) -> tuple[int, int]:
    """(number of tensors, number of key-value pairs)."""
    magic = bytes(cursor.view[:4])
    if magic != b"GGUF":
        cursor.fail("magic", "b'GGUF' (is this a GGUF file?)", magic)
    cursor.position = 4
    version = cursor.integer("I", "version")
    if version and version & 0xFFFF == 0:
        cursor.fail("version", "a little-endian file", "a big-endian one; convert it with gguf-convert-endian")
    if version not in (2, 3):
        cursor.fail("version", "2 or 3", version)
    num_tensors, num_pairs = cursor.integer("Q", "tensor count"), cursor.integer("Q", "metadata count")
    left = len(cursor.data) - cursor.position
    if num_pairs > left // _MIN_PAIR_BYTES:
        cursor.fail("metadata count", f"at most {left // _MIN_PAIR_BYTES}, as many as fit the file", num_pairs)
    if num_tensors > left // _MIN_TENSOR_BYTES:
        cursor.fail("tensor count", f"at most {left // _MIN_TENSOR_BYTES}, as many as fit the file", num_tensors)
    return num_tensors, num_pairs


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = cursor.text(f"metadata key {index}")
        if key in metadata:
            cursor.fail(f"metadata {key}", "each key once", "a second value")
        metadata[key] = _read_value(cursor, cursor.integer("I", f"metadata {key} type"), f"metadata {key}")
    return metadata


def _read_value(cursor: _Cursor, kind: int, field: str, depth: int = 0) -> Any:
    if kind == _STRING:
        return cursor.text(field)
    if kind == _ARRAY:
        return _read_array(cursor, field, depth + 1)
    return _read_scalars(cursor, kind, 1, field)[0]


def _read_scalars(cursor: _Cursor, kind: int, count: int, field: str) -> list[Any]:
    if kind not in _SCALARS:
        cursor.fail(f"{field} type", "a GGUF value type (0 to 12)", kind)
    dtype = np.dtype(_SCALARS[kind])
    raw = cursor.data[cursor.need(count * dtype.itemsize, field) : cursor.position]
    if kind == _BOOL and raw.size and raw.max() > 1:
        cursor.fail(field, "booleans 0 or 1", int(raw.max()))
    return cast(list[Any], raw.view(dtype).tolist())


def _read_array(cursor: _Cursor, field: str, depth: int) -> list[Any]:
    if depth > _MAX_NESTING:
        cursor.fail(field, f"arrays nested at most {_MAX_NESTING} deep", "deeper ones")
    kind, count = cursor.integer("I", f"{field} item type"), cursor.integer("Q", f"{field} length")
    if kind not in (_STRING, _ARRAY):
        return _read_scalars(cursor, kind, count, field)
    smallest = 8 if kind == _STRING else 12
    if count > (len(cursor.data) - cursor.position) // smallest:
        cursor.fail(f"{field} length", "as many items as fit the file", count)
    if kind == _STRING:
        return cursor.texts(count, field)
    return [_read_array(cursor, field, depth + 1) for _ in range(count)]


def _alignment(cursor: _Cursor, metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment", 32)
    if type(value) is not int or not 1 <= value <= 2**20 or value & (value - 1):
        cursor.fail("general.alignment", "a power of two up to 1 MiB", value)
    return value


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


# ---- tensors ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Description:
    """A tensor before its bytes are looked at. `offset` counts from the start of the data section."""

    name: str
    shape: tuple[int, ...]
    storage: Storage
    offset: int
    size_bytes: int


def _read_description(cursor: _Cursor) -> _Description:
    name = cursor.text("tensor name")
    field = f"tensor {name}"
    count = cursor.integer("I", f"{field} dimensions")
    if not 1 <= count <= _MAX_DIMENSIONS:
        cursor.fail(f"{field} dimensions", f"1 to {_MAX_DIMENSIONS}", count)
    shape = tuple(reversed([cursor.integer("Q", f"{field} shape") for _ in range(count)]))  # ggml: columns first
    kind, offset = cursor.integer("I", f"{field} type"), cursor.integer("Q", f"{field} offset")
    storage = _TYPES.get(kind, f"type {kind}")
    if storage not in BLOCK:
        cursor.fail(f"{field} type", f"one of {', '.join(BLOCK)}", storage)
    elements, block_bytes = BLOCK[storage]
    if shape[-1] % elements:
        cursor.fail(f"{field} columns", f"a multiple of {elements} for {storage}", shape[-1])
    size = math.prod(shape) // elements * block_bytes
    if not 0 < size <= len(cursor.data):
        cursor.fail(f"{field} shape", f"1 to {len(cursor.data)} bytes, what the file holds", f"{shape}, {size} bytes")
    return _Description(name, shape, cast(Storage, storage), offset, size)


def _place(cursor: _Cursor, described: list[_Description], start: int, alignment: int) -> dict[str, Tensor]:
    """Views of the data, in the order of the descriptions, once every interval is known to be good."""
    end = start
    for item in sorted(described, key=lambda item: item.offset):
        field, first = f"tensor {item.name} offset", start + item.offset
        if item.offset % alignment:
            cursor.fail(field, f"a multiple of {alignment}", item.offset)
        if first + item.size_bytes > len(cursor.data):
            found = f"{first} + {item.size_bytes} (the file is cut short, or corrupt)"
            cursor.fail(field, f"its bytes to end before {len(cursor.data)}", found)
        if first < end:
            cursor.fail(field, f"at least {end - start}, the end of the tensor before", item.offset)
        end = first + item.size_bytes
    tensors: dict[str, Tensor] = {}
    for item in described:
        if item.name in tensors:
            cursor.fail(f"tensor {item.name}", "each name once", "a second tensor")
        raw = cursor.data[start + item.offset : start + item.offset + item.size_bytes]
        tensors[item.name] = Tensor(item.name, item.shape, item.storage, raw.reshape(math.prod(item.shape[:-1]), -1))
    return tensors
