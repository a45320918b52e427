"""Digests of circuits and of named arrays: the statement that a transcript binds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.core.encoding import encode
from shoal.crypto.hashes import hasher
from shoal.proof.circuit import Circuit

_CIRCUIT, _ARRAY, _ARRAYS = "shoal proof circuit v1", "shoal proof array v1", "shoal proof arrays v1"
_WIDTHS = (8, 16, 32, 64)


def circuit_digest(circuit: Circuit) -> bytes:
    """32 bytes. Circuits that differ in anything, labels and constants included, have different digests."""
    return bytes(hasher(_CIRCUIT).update(encode(_plain(circuit))).digest())


def array_digest(values: npt.NDArray[np.integer]) -> bytes:
    """32 bytes for shape and numbers, whatever integer type stores them. OverflowError beyond 64 signed bits."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    width = next((w for w in _WIDTHS if -(1 << (w - 1)) <= low and high < 1 << (w - 1)), None)
    if width is None:
        raise OverflowError(f"expected signed 64-bit integers, found {low} to {high}")
    narrow = np.ascontiguousarray(values, f"<i{width // 8}")
    state = hasher(_ARRAY).update(encode([list(values.shape), width]))
    return bytes(state.update(narrow.reshape(-1).view(np.uint8).data).digest())


def arrays_digest(arrays: Mapping[str, npt.NDArray[np.integer]]) -> bytes:
    """32 bytes for names and arrays; their order does not count."""
    return bytes(hasher(_ARRAYS).update(encode({name: array_digest(array) for name, array in arrays.items()})).digest())


def _plain(value: Any) -> Any:
    """What `encode` takes: arrays as their digests, dataclasses as lists of fields, large coefficients as text."""
    if isinstance(value, np.ndarray):
        return array_digest(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, item.name)) for item in fields(value)]
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return {"integer": str(value)}
    return value
