"""Writes GGUF files, version 3, little-endian: the counterpart of `gguf.read_gguf`, for models made here.

The file appears whole or not at all: it is written beside its place, flushed, and moved there by one rename.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from shoal.models.tensors import Tensor

ALIGNMENT = 32

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64, _I64 = 4, 5, 6, 7, 8, 9, 10, 11
_FORMATS = {_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?", _U64: "<Q", _I64: "<q"}
_STORAGES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13,
             "Q6_K": 14, "BF16": 30}  # fmt: skip


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Iterable[Tensor]) -> None:
    """metadata: str, bool, int, float or lists of one of these. ValueError for any other value. OSError as files do."""
    listed = list(tensors)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key) + _value(key, value))
        _describe(file, listed)
        for tensor in listed:
            _pad(file)
            file.write(tensor.data.tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _describe(file: BinaryIO, tensors: list[Tensor]) -> None:
    offset = 0
    for tensor in tensors:
        dimensions = tuple(reversed(tensor.shape))  # ggml: columns first
        file.write(_text(tensor.name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions))
        file.write(struct.pack("<IQ", _STORAGES[tensor.storage], offset))
        offset += -(-tensor.size_bytes // ALIGNMENT) * ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Any) -> bytes:
    """Type and value."""
    if not isinstance(value, list):
        return _scalar(key, _kind(key, [value]), value, with_type=True)
    kind = _kind(key, value)
    header = struct.pack("<IIQ", _ARRAY, kind, len(value))
    return header + b"".join(_scalar(key, kind, item, with_type=False) for item in value)


def _scalar(key: str, kind: int, value: Any, with_type: bool) -> bytes:
    data = _text(value) if kind == _STRING else struct.pack(_FORMATS[kind], value)
    return struct.pack("<I", kind) + data if with_type else data


def _kind(key: str, values: list[Any]) -> int:
    """The one type all values fit; an empty list is one of strings."""
    kinds = {type(value) for value in values} or {str}
    if kinds == {str}:
        return _STRING
    if kinds == {bool}:
        return _BOOL
    if kinds == {float}:
        return _F32
    if kinds == {int}:
        return _integer(min(values), max(values), is_list=len(values) > 1)
    raise ValueError(f"{key}: expected text, booleans, integers or floats, all of one kind, found {values!r:.80}")


def _integer(low: int, high: int, is_list: bool) -> int:
    """Sizes are u32 and lists of token types i32, as llama.cpp expects them, where they fit."""
    if low >= 0 and high < 2**32 and not (is_list and high < 2**31):
        return _U32
    if low >= -(2**31) and high < 2**31:
        return _I32
    return _U64 if low >= 0 else _I64
