"""A file as read-only bytes in memory, mapped and not copied, and small JSON files read with a bound."""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from shoal.core.errors import BadWeights

MAX_JSON_BYTES = 64 * 2**20
"""config.json is 1 kB, the index of a large sharded model 1 MB, a safetensors header of 100,000 tensors 10 MB."""


def map_file(path: str | Path) -> np.ndarray:
    """uint8 (file size,), read-only. BadWeights if there is no such file, it cannot be read, or it is empty."""
    try:
        _check_regular(path)
        with open(path, "rb") as file:
            if file.seek(0, 2) == 0:
                raise BadWeights(str(path), "file", "weights", "an empty file")
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as error:
        raise BadWeights(str(path), "file", "a readable file of weights", _reason(error)) from error


def let_go(array: np.ndarray) -> None:
    """Give back the memory of a part of a mapped file that was read; it is read again if need be. Others: no effect."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapping = base.obj if isinstance(base, memoryview) else base
    if not isinstance(mapping, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED") or not array.flags.c_contiguous:
        return
    start = array.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


def read_text(path: Path, limit: int = MAX_JSON_BYTES) -> str:
    """The file's UTF-8 text. BadWeights if it cannot be read, is longer than `limit` bytes or not UTF-8."""
    try:
        _check_regular(path)
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise BadWeights(str(path), "file", "a readable file", _reason(error)) from error
    if len(data) > limit:
        raise BadWeights(str(path), "size", f"at most {limit} bytes", "more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadWeights(str(path), "text", "UTF-8", error.reason) from error


def parse_object(text: str | bytes, file: str, field: str) -> dict[str, Any]:
    """The JSON object in `text`, each key once. BadWeights for anything else."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in pairs:
            if key in found:
                raise BadWeights(file, f"{field} {key}", "each key once", "a second value")
            found[key] = item
        return found

    def not_finite(word: str) -> NoReturn:
        raise BadWeights(file, field, "finite numbers", word)

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=not_finite)
    except (ValueError, RecursionError) as error:
        raise BadWeights(file, field, "a JSON object", str(error)) from error
    if not isinstance(value, dict):
        raise BadWeights(file, field, "a JSON object", type(value).__name__)
    return value


def read_json(path: Path) -> Mapping[str, Any]:
    """The JSON object in the file. BadWeights as above."""
    return parse_object(read_text(path), str(path), "JSON")


def _check_regular(path: str | Path) -> None:
    """Opening a pipe would wait for a writer. OSError where there is nothing."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise BadWeights(str(path), "file", "a regular file", "a directory, pipe or device")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
