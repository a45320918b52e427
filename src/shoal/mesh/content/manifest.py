"""A blob's pieces in order. The id of the blob is the hash of its manifest, so a manifest checks itself."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from shoal.core.encoding import encode
from shoal.core.errors import LocalError, PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.mesh import parse
from shoal.mesh.content.chunker import MAX_BYTES, MIN_BYTES, chunk_sizes

ID_BYTES = 32
MAX_CHUNKS = 2**20
MAX_MANIFEST = MAX_CHUNKS * 36 + 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """`hashes` and `sizes` of the pieces; `offsets` where each begins."""

    hashes: tuple[bytes, ...]
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    id: bytes

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes)

    def to_bytes(self) -> bytes:
        return encode(_fields(self.hashes, self.sizes))


def manifest(hashes: tuple[bytes, ...], sizes: tuple[int, ...]) -> Manifest:
    identity = blake3_digest("shoal content manifest v1", encode(_fields(hashes, sizes)))
    return Manifest(hashes, sizes, tuple(accumulate(sizes, initial=0))[:-1], identity)


def chunk_hash(data: bytes | bytearray | memoryview) -> bytes:
    return blake3_digest("shoal content chunk v1", data)


def manifest_of(path: Path, on_bytes: Callable[[int], None] = lambda done: None) -> Manifest:
    """Read a file and cut it into pieces. LocalError where it cannot be read."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return manifest((), ())
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
                return _cut(data, on_bytes)
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error}") from error


def _cut(data: memoryview, on_bytes: Callable[[int], None]) -> Manifest:
    hashes, sizes, start = list[bytes](), list[int](), 0
    for size in chunk_sizes(data):
        hashes.append(chunk_hash(data[start : start + size]))
        sizes.append(size)
        start += size
        on_bytes(start)
    return manifest(tuple(hashes), tuple(sizes))


def parse_manifest(data: bytes | memoryview, identity: bytes) -> Manifest:
    """The manifest of the blob `identity`. PeerFault for the bytes of any other."""
    version, hashes, sizes = parse.row(parse.message(data, MAX_MANIFEST, max_items=4), 3)
    parse.integer(version, 1, 1)
    count = len(parse.octets(sizes, 4 * MAX_CHUNKS)) // 4
    if len(sizes) != 4 * count or len(parse.octets(hashes, ID_BYTES * MAX_CHUNKS)) != ID_BYTES * count:
        raise PeerFault("expected as many hashes as sizes")
    numbers = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    if any(not MIN_BYTES <= size <= MAX_BYTES for size in numbers[:-1]) or not all(
        0 < size <= MAX_BYTES for size in numbers[-1:]
    ):
        raise PeerFault(f"expected pieces of {MIN_BYTES} to {MAX_BYTES} bytes, the last one of any size up to it")
    found = manifest(tuple(hashes[place : place + ID_BYTES] for place in range(0, len(hashes), ID_BYTES)), numbers)
    if found.id != identity:
        raise PeerFault(f"expected the manifest of {identity.hex()[:16]}, found that of {found.id.hex()[:16]}")
    return found


def _fields(hashes: tuple[bytes, ...], sizes: tuple[int, ...]) -> list[Any]:
    return [1, b"".join(hashes), np.array(sizes, dtype=">u4").tobytes()]
