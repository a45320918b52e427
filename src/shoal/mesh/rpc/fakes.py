"""Two ends of a link in memory, with bounded buffers and no delay, for tests of what runs over links.

`mesh.memory` simulates networks; this is only a pipe, so that a test sees each step of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

from shoal.core.errors import LinkClosed, StreamReset
from shoal.mesh.carrier import Bytes, LinkInfo
from shoal.mesh.peer_id import PeerId

ROOM = 256 * 2**10
"""Unread bytes of one direction of a stream before its writer waits."""


class _Pipe:
    """One direction of one stream."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.is_finished = False
        self.error: LinkClosed | None = None
        self._changed = asyncio.Event()

    async def wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def fail(self, error: LinkClosed) -> None:
        self.error = self.error or error
        self.wake()


class FakeStream:
    """One side of a stream: writes to one pipe, reads from the other."""

    def __init__(self, link: FakeLink, out: _Pipe, into: _Pipe) -> None:
        self._link, self._out, self._in = link, out, into
        self._peer: FakeStream | None = None

    async def write(self, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        while view:
            self._out.check()
            room = ROOM - self._out.size
            if room <= 0:
                await self._out.wait()
                continue
            self._announce()
            self._out.chunks.append(bytes(view[:room]))
            self._out.size += min(room, len(view))
            self._out.wake()
            view = view[room:]

    async def read(self, max_bytes: int) -> bytes:
        while not self._in.chunks:
            self._in.check()
            if self._in.is_finished:
                return b""
            await self._in.wait()
        chunk = self._in.chunks.popleft()
        if len(chunk) > max_bytes:
            self._in.chunks.appendleft(chunk[max_bytes:])
        self._in.size -= min(len(chunk), max_bytes)
        self._in.wake()
        return chunk[:max_bytes]

    async def finish(self) -> None:
        self._announce()
        self._out.is_finished = True
        self._out.wake()

    def reset(self) -> None:
        for pipe in (self._out, self._in):
            pipe.chunks.clear()
            pipe.fail(StreamReset("the stream was reset"))

    def fail(self, error: LinkClosed) -> None:
        self._out.fail(error)
        self._in.fail(error)

    def pair_with(self, peer: FakeStream) -> None:
        """`peer` is what the other side gets with the first byte."""
        self._peer = peer

    def _announce(self) -> None:
        if self._peer is not None:
            self._link.offer(self._peer)
            self._peer = None


class FakeLink:
    """One end of a link; see `link_pair`."""

    def __init__(self, peer: PeerId, is_dialer: bool) -> None:
        self._peer, self._is_dialer = peer, is_dialer
        self._incoming: asyncio.Queue[FakeStream | None] = asyncio.Queue()
        self._streams: list[FakeStream] = []
        self._reason: str | None = None
        self._ended = asyncio.Event()
        self.other: FakeLink | None = None

    @property
    def peer(self) -> PeerId:
        return self._peer

    def info(self) -> LinkInfo:
        return LinkInfo("memory", "direct", str(self._peer), 0.0, self._is_dialer)

    async def open(self, priority: int = 0) -> FakeStream:
        self._check()
        assert self.other is not None
        up, down = _Pipe(), _Pipe()
        mine, theirs = FakeStream(self, up, down), FakeStream(self.other, down, up)
        mine.pair_with(theirs)
        self._streams.append(mine)
        return mine

    def offer(self, stream: FakeStream) -> None:
        """`stream` is this end's; the other end accepts its counterpart."""
        assert self.other is not None
        self.other.deliver(stream)

    def deliver(self, stream: FakeStream) -> None:
        self._streams.append(stream)
        self._incoming.put_nowait(stream)

    async def accept(self) -> FakeStream:
        self._check()
        stream = await self._incoming.get()
        if stream is None:
            self._incoming.put_nowait(None)
            raise LinkClosed(f"the link ended: {self._reason}")
        return stream

    async def close(self, reason: str = "") -> None:
        assert self.other is not None
        for end in (self, self.other):
            end.end(reason or "closed")

    def end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            self._incoming.put_nowait(None)
            for stream in self._streams:
                stream.fail(LinkClosed(f"the link ended: {reason}"))
            self._ended.set()

    async def closed(self) -> str:
        await self._ended.wait()
        return self._reason or ""

    def _check(self) -> None:
        if self._reason is not None:
            raise LinkClosed(f"the link ended: {self._reason}")


def link_pair(dialer: PeerId, listener: PeerId) -> tuple[FakeLink, FakeLink]:
    """The dialer's end and the listener's end."""
    here, there = FakeLink(listener, is_dialer=True), FakeLink(dialer, is_dialer=False)
    here.other, there.other = there, here
    return here, there
