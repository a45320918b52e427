"""Loads the `iroh` library at first use, never when this module is imported: not every platform has it."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from shoal.core.errors import Unsupported
from shoal.mesh.quic.fast_bytes import speed_up
from shoal.mesh.quic.foreign import Generated, Speech, speak

Module = Any
"""The library's generated module; its glue is typed by no stub worth the name."""


@functools.cache
def load() -> Module:
    """The library, its byte copies mended once. Unsupported where there is none for this platform."""
    try:
        iroh = importlib.import_module("iroh")
    except (ImportError, OSError) as error:
        raise Unsupported(
            f"the quic carrier needs the library iroh, which cannot be loaded here ({error}); "
            "use the tcp carrier, which needs nothing but Python"
        ) from error
    speed_up(importlib.import_module("iroh.iroh_ffi"))
    return iroh


@functools.cache
def speech() -> Speech | Generated:
    """How the loaded library's streams are read and written."""
    load()
    return speak(importlib.import_module("iroh.iroh_ffi"))
