"""safetensors files: a JSON header and tensors as views of the memory-mapped file.

Layout (huggingface/safetensors, "Format"): u64 header length, JSON header, tensor bytes. As strict as the reference
reader: offsets begin at zero, leave no hole, do not overlap and end at the end of the file.

What this does not protect against: weights that are well-formed and wrong, and a file that another program cuts short
or rewrites while it is mapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shoal.core.errors import BadWeights
from shoal.models.mapped import MAX_JSON_BYTES, map_file, parse_object
from shoal.models.tensors import BLOCK, Storage, Tensor

_STORAGES: dict[str, Storage] = {"F32": "F32", "F16": "F16", "BF16": "BF16"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor before its bytes are looked at; `start` and `end` count from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_safetensors(path: Path, is_ignored: Callable[[str], bool]) -> dict[str, Tensor]:
    """Every tensor but those whose name is ignored. BadWeights for anything but a whole file of F32, F16 and BF16."""
    data = map_file(path)
    file = str(path)
    size = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_JSON_BYTES, len(data) - 8):
        most = min(MAX_JSON_BYTES, max(len(data) - 8, 0))
        raise BadWeights(file, "header length", f"2 to {most} (is this a safetensors file?)", str(size))
    header = parse_object(data[8 : 8 + size].tobytes(), file, "header")
    header.pop("__metadata__", None)
    body = data[8 + size :]
    entries = [_entry(file, name, value) for name, value in header.items()]
    _check_layout(file, entries, len(body))
    return {entry.name: _tensor(file, entry, body) for entry in entries if not is_ignored(entry.name)}


def _entry(file: str, name: str, value: Any) -> _Entry:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, end]}:
            numbers = (*shape, start, end)
            if all(type(number) is int and 0 <= number < 2**63 for number in numbers) and start <= end:
                return _Entry(name, dtype, tuple(shape), start, end)
    raise BadWeights(file, f"header {name}", "a dtype, a shape and two offsets", repr(value)[:100])


def _check_layout(file: str, entries: list[_Entry], size: int) -> None:
    position = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != position:
            raise BadWeights(file, f"tensor {entry.name} offset", f"{position}, no hole or overlap", str(entry.start))
        position = entry.end
    if position != size:
        raise BadWeights(file, "size", f"{position} bytes of tensors", f"{size} (the file is cut short, or corrupt)")


def _tensor(file: str, entry: _Entry, body: np.ndarray) -> Tensor:
    storage = _STORAGES.get(entry.dtype)
    if storage is None:
        raise BadWeights(file, f"tensor {entry.name} type", f"one of {', '.join(_STORAGES)}", entry.dtype)
    width = BLOCK[storage][1]
    expected = math.prod(entry.shape) * width
    if expected != entry.end - entry.start or not expected:
        found = f"{entry.end - entry.start} for {entry.dtype} {entry.shape}"
        raise BadWeights(file, f"tensor {entry.name} bytes", str(expected or "one or more"), found)
    raw = body[entry.start : entry.end]
    if raw.ctypes.data % width:  # the format does not promise alignment, kernels need it
        raw = raw.copy()
    return Tensor(entry.name, entry.shape, storage, raw.reshape(math.prod(entry.shape[:-1]), -1))
