"""The C library of the hot loops (csrc), built for this CPU at first use. Without a compiler every caller has a twin.

A caller asks for a function where it uses it and goes on in numpy if there is none:
`if call := native.function("proof_eq_step", "pqpp"): call(native.pointer(table), n, ...)`.
"""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from shoal.core.errors import Unsupported
from shoal.kernels import build

UNIT = build.Unit(Path(__file__).parent / "csrc", "proof")
_TYPES: dict[str, Any] = {"p": c.c_void_p, "i": c.c_int, "q": c.c_int64}


@cache
def library() -> c.CDLL | None:
    """The library for this CPU, or None where none can be built or loaded."""
    try:
        found = c.CDLL(str(build.library_path(unit=UNIT)))
    except (Unsupported, OSError):
        return None
    found.proof_set_threads(usable_threads())
    return found


def usable_threads() -> int:
    """Processors this process may run on: how many threads a loop uses unless told otherwise."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(threads: int) -> None:
    """How many threads a loop may use from now on, in the whole process."""
    if found := library():
        found.proof_set_threads(threads)


def function(name: str, arguments: str) -> Callable[..., int] | None:
    """The C function, its arguments spelled p (pointer), i (int), q (int64); None without a library. Returns int."""
    found = library()
    return None if found is None else _typed(found, name, arguments)


def pointer(array: np.ndarray) -> int:
    """Address of an array's first element. The caller sees to it that the array is contiguous and lives on."""
    try:
        return c.addressof(c.c_char.from_buffer(array.data))  # a quarter of the time of the way below
    except (TypeError, ValueError):  # read-only, or empty
        return int(array.ctypes.data)


@cache
def _typed(found: c.CDLL, name: str, arguments: str) -> Any:
    call = found[name]
    call.argtypes = tuple(_TYPES[letter] for letter in arguments)
    return call
