"""Collateral on disk: what was fetched once (by whoever fetches) serves the next quote of the same platform.

Rules that stay true in this file:
- a file is whole or absent: written beside, then renamed; one that is damaged is as good as absent;
- at most `limit` files, the least recently used go first; names are hashes, so a quote cannot choose a path;
- what is cached is trusted no more than what came with the quote: signatures and dates are checked at every use.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from shoal.core.errors import LocalError
from shoal.trust.attest.verify import MAX_COLLATERAL_BYTES

MAX_FILES = 256


class CollateralCache:
    """In `folder`, made when something is first kept."""

    def __init__(self, folder: Path, limit: int = MAX_FILES) -> None:
        self._folder = folder
        self._limit = limit

    def get(self, key: str) -> bytes | None:
        """What was kept for `key` (`verify.collateral_key`), or None."""
        path = self._path(key)
        try:
            if path.stat().st_size > MAX_COLLATERAL_BYTES:
                return None
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, whole = data[:32], data[32:]
        return whole if hashlib.sha256(whole).digest() == digest else None

    def put(self, key: str, collateral: bytes) -> None:
        """Keep it, in the place of what was kept for `key`. LocalError where the disk does not let us."""
        if len(collateral) > MAX_COLLATERAL_BYTES - 32:
            raise ValueError(
                f"expected collateral of at most {MAX_COLLATERAL_BYTES - 32} bytes, found {len(collateral)}"
            )
        path = self._path(key)
        partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(hashlib.sha256(collateral).digest() + collateral)
            os.replace(partial, path)
            self._forget_oldest()
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise LocalError(f"collateral cannot be kept in {self._folder}: {error}") from error

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.collateral"

    def _forget_oldest(self) -> None:
        kept = sorted(self._folder.glob("*.collateral"), key=lambda path: path.stat().st_mtime)
        for path in kept[: max(0, len(kept) - self._limit)]:
            path.unlink(missing_ok=True)
