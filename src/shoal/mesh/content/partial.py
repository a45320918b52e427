"""A blob on its way to the disk: pieces written where they belong, the whole thing given its name in one step.

What is there is found by hashing it, so a kill at any time costs no more than the pieces that were being written.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.core.errors import LocalError
from shoal.core.units import format_size
from shoal.mesh.content.manifest import Manifest, chunk_hash, manifest_of


class Partial:
    """`path` with ".part" at its end, until `finish`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path.with_name(path.name + ".part")
        self.has = set[int]()
        self.missing = set(range(len(manifest.sizes)))
        self.done_bytes = 0
        self._target = path
        self._manifest = manifest
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LocalError(f"{self.path} cannot be written: {error}") from error

    def resume(self, older: Iterable[Path] = ()) -> None:
        """Find the pieces that are in the file already, and copy those that `older` files have."""
        end = os.fstat(self._descriptor).st_size
        for piece, (offset, size) in enumerate(zip(self._manifest.offsets, self._manifest.sizes, strict=True)):
            if offset + size <= end and self.is_right(piece, os.pread(self._descriptor, size, offset)):
                self._note(piece)
        for path in older if self.missing else ():
            self._copy(path)

    def require_room(self) -> None:
        """LocalError where the disk has no room for what is missing: better now than after hours."""
        needed, free = self._manifest.size_bytes - self.done_bytes, shutil.disk_usage(self.path.parent).free
        if needed > free:
            where = f"{self.path.parent} has {format_size(free)} free, the rest takes {format_size(needed)}"
            raise LocalError(f"{where}; make room, or set SHOAL_HOME to a directory on a larger disk")

    def is_right(self, piece: int, data: bytes | memoryview) -> bool:
        return len(data) == self._manifest.sizes[piece] and chunk_hash(data) == self._manifest.hashes[piece]

    def put(self, piece: int, data: bytes | memoryview) -> None:
        """A piece that `is_right`. LocalError where the disk does not take it."""
        with self._writing():
            written = os.pwrite(self._descriptor, data, self._manifest.offsets[piece])
            if written != len(data):  # as a disk does that is nearly full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._note(piece)

    def finish(self) -> None:
        """On disk, then under its name. LocalError where the disk does not take it."""
        with self._writing():
            os.ftruncate(self._descriptor, self._manifest.size_bytes)
            os.fsync(self._descriptor)
            os.replace(self.path, self._target)

    def _note(self, piece: int) -> None:
        if piece in self.missing:
            self.missing.remove(piece)
            self.has.add(piece)
            self.done_bytes += self._manifest.sizes[piece]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalError(f"{self.path} cannot be written: {error.strerror}; make room and try again") from error

    def close(self) -> None:
        os.close(self._descriptor)

    def _copy(self, path: Path) -> None:
        old = manifest_of(path)
        where = dict(zip(old.hashes, zip(old.offsets, old.sizes, strict=True), strict=True))
        with path.open("rb") as file:
            for piece in sorted(self.missing):
                if (found := where.get(self._manifest.hashes[piece])) is not None:
                    data = os.pread(file.fileno(), found[1], found[0])
                    if self.is_right(piece, data):
                        self.put(piece, data)
