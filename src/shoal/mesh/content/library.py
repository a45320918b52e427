"""The blobs this node shares, because somebody said so for each, and answering who asks for them.

Each peer has a bucket of bytes a second; whoever wants more waits, and with too many calls waiting is refused.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shoal.core.clock import Clock
from shoal.core.errors import InvalidRequest, LocalError, Overloaded
from shoal.mesh.calls import Answering, Body, Incoming
from shoal.mesh.content import messages
from shoal.mesh.content.manifest import ID_BYTES, Manifest
from shoal.mesh.content.transfers import Transfers
from shoal.mesh.peer_id import PeerId

MAX_CALLS = 16
"""Of one peer at once."""
MAX_PEERS = 4096


@dataclass(slots=True)
class Shared:
    """A file being served. `has` None: all pieces; else those that are there while it is on its way.

    name  for people.
    """

    path: Path
    manifest: Manifest
    has: set[int] | None = None
    name: str = ""

    def pieces(self) -> set[int]:
        return set(range(len(self.manifest.sizes))) if self.has is None else self.has


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float
    calls: int = 0


@dataclass(slots=True)
class Library:
    """`bytes_per_s` for each peer; `may_read` is asked for every call."""

    clock: Clock
    bytes_per_s: float = 100e6
    may_read: Callable[[PeerId], bool] = lambda peer: True
    given_bytes: int = 0
    transfers: Transfers | None = None
    _shared: dict[bytes, Shared] = field(default_factory=dict)
    _buckets: dict[PeerId, _Bucket] = field(default_factory=dict)

    def share(self, shared: Shared) -> None:
        self._shared[shared.manifest.id] = shared

    def withdraw(self, blob: bytes) -> None:
        self._shared.pop(blob, None)

    def get(self, blob: bytes) -> Shared | None:
        return self._shared.get(blob)

    def register(self, answering: Answering) -> None:
        answering.unary("content.manifest", self._on_manifest)
        answering.unary("content.have", self._on_have)
        answering.unary("content.piece", self._on_piece)

    async def _on_manifest(self, incoming: Incoming, body: memoryview) -> Body:
        shared = self._found(messages.parse_blob(body), incoming.peer)
        await self._wait(incoming.peer, ID_BYTES * len(shared.manifest.sizes))  # that of 100 GB has 14 MB itself
        return shared.manifest.to_bytes()

    async def _on_have(self, incoming: Incoming, body: memoryview) -> Body:
        shared = self._found(messages.parse_blob(body), incoming.peer)
        return messages.have_bytes(shared.pieces(), len(shared.manifest.sizes))

    async def _on_piece(self, incoming: Incoming, body: memoryview) -> Body:
        blob, piece = messages.parse_piece(body)
        shared = self._found(blob, incoming.peer)
        if piece not in shared.pieces():
            raise InvalidRequest(f"piece {piece} of {blob.hex()[:16]} is not here", "piece")
        size = shared.manifest.sizes[piece]
        await self._wait(incoming.peer, size)
        data = await asyncio.to_thread(_read, shared.path, shared.manifest.offsets[piece], size)
        self.given_bytes += size
        if self.transfers is not None:
            name = shared.name or shared.path.name
            self.transfers.gave(incoming.peer, blob, name, shared.manifest.size_bytes, size)
        return data

    def _found(self, blob: bytes, peer: PeerId) -> Shared:
        shared = self._shared.get(blob) if self.may_read(peer) else None
        if shared is None:
            raise InvalidRequest(f"blob {blob.hex()[:16]} is not shared with you here", "blob")
        return shared

    async def _wait(self, peer: PeerId, size: int) -> None:
        now = self.clock.monotonic()
        if len(self._buckets) >= MAX_PEERS and peer not in self._buckets:
            self._forget(now)
        bucket = self._buckets.setdefault(peer, _Bucket(self.bytes_per_s, now))
        bucket.level = min(self.bytes_per_s, bucket.level + (now - bucket.at) * self.bytes_per_s)
        bucket.at = now
        if bucket.calls >= MAX_CALLS:
            raise Overloaded(f"{bucket.calls} pieces are on their way to you already")
        bucket.level -= size
        if bucket.level >= 0:
            return
        bucket.calls += 1
        try:
            await self.clock.sleep(-bucket.level / self.bytes_per_s)
        finally:
            bucket.calls -= 1

    def _forget(self, now: float) -> None:
        """Buckets that are full again by now say nothing."""
        full = [peer for peer, item in self._buckets.items() if not item.calls and now - item.at > 2]
        for peer in full:
            del self._buckets[peer]
        if len(self._buckets) >= MAX_PEERS:
            raise Overloaded("too many peers read here at once")


def _read(path: Path, offset: int, size: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise LocalError(f"a shared file is gone: {error.strerror}") from error
    try:
        data = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise LocalError("a shared file is shorter than it was")
    return data
