"""BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), always with a purpose, so that a digest made for one use fits
no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from blake3 import blake3 as Blake3


def hasher(purpose: str) -> Blake3:
    """An incremental hash for `purpose`, a constant such as "shoal content v1"."""
    return blake3(derive_key_context=purpose)


def blake3_digest(purpose: str, data: bytes | bytearray | memoryview) -> bytes:
    """32 bytes: the hash of `data` for `purpose`."""
    return bytes(blake3(data, derive_key_context=purpose).digest())
