"""SHA-256 of weights, with progress, and one rule for what the hash of a folder is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from shoal.models.store import size_on_disk, weight_files

Progress = Callable[[str, int, int | None], None]
"""(what is being done, bytes done, bytes in all or None). Called often; must be cheap."""

CHUNK_BYTES = 1 << 20


def no_progress(phase: str, done_bytes: int, total_bytes: int | None) -> None:
    """A `Progress` that says nothing."""


def hash_weights(path: Path, progress: Progress = no_progress) -> str:
    """Hex SHA-256 of a GGUF file, or of the sorted lines "<sha256>  <file name>\\n" of a folder."""
    total, done = size_on_disk(path), 0
    digests = {}
    for item in weight_files(path):
        with item.open("rb") as source:
            digests[item.name] = copy(source, None, offset(progress, "check", done, total))
        done += item.stat().st_size
    if path.is_file():
        return digests[path.name]
    listing = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(listing.encode()).hexdigest()


def offset(progress: Progress, phase: str, base: int, total: int) -> Callable[[int], None]:
    """Reports one file of several: `base` bytes were done before it."""
    return lambda done: progress(phase, base + done, total)


def copy(source: BinaryIO, target: BinaryIO | None, on_bytes: Callable[[int], None]) -> str:
    """Read `source` to its end, write it to `target` if there is one, and return its hex SHA-256."""
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
        done += len(chunk)
        on_bytes(done)
    return digest.hexdigest()
