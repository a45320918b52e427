"""Large messages, apart from the lane: a few streams, kept open and used again, each with one message at a time.

`BulkSender` opens them as they are needed; `Budget` bounds what is held at once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence

from shoal.mesh.carrier import Bytes, Link, Stream
from shoal.mesh.rpc.limits import BULK_STREAMS

BULK_PRIORITY = -1
"""Of the carrier's stream; the lane's is 1."""


FIRST_BYTES = 64 * 2**10
SLICE_BYTES = 256 * 2**10


class BulkSender:
    """Sends whole messages; the most urgent waits least for a stream."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._idle: list[Stream] = []
        self._busy = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def send(self, priority: int, head: bytes, buffers: Sequence[Bytes]) -> None:
        """Returns once the carrier has all of it. Failing or cancelled, the stream is reset: no half message stays."""
        await self._enter(priority)
        stream: Stream | None = None
        try:
            stream = self._idle.pop() if self._idle else await self._link.open(BULK_PRIORITY)
            for piece in _pieces(head, buffers):
                await stream.write(piece)
        except BaseException:
            if stream is not None:
                stream.reset()
            raise
        else:
            self._idle.append(stream)
        finally:
            self._busy -= 1
            self._wake()

    async def _enter(self, priority: int) -> None:
        if self._busy < BULK_STREAMS:
            self._busy += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._order), future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # woken and cancelled in one turn: pass the place on
                self._busy -= 1
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self._busy < BULK_STREAMS:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                self._busy += 1
                future.set_result(None)


def _pieces(head: bytes, buffers: Sequence[Bytes]) -> Iterator[Bytes]:
    """`head` and the start of the first large buffer as one, since a write costs as much as FIRST_BYTES copied."""
    start = [head]
    for index, buffer in enumerate(buffers):
        if len(buffer) > FIRST_BYTES:
            yield b"".join((*start, memoryview(buffer)[:FIRST_BYTES]))
            yield from _slices(memoryview(buffer)[FIRST_BYTES:])
            for rest in buffers[index + 1 :]:
                yield from _slices(memoryview(rest))
            return
        start.append(bytes(buffer))
    yield b"".join(start)


def _slices(buffer: memoryview) -> Iterator[memoryview]:
    """A carrier may copy what it is given, all at once: 64 MB would stop the event loop for 20 ms."""
    for at in range(0, len(buffer), SLICE_BYTES):
        yield buffer[at : at + SLICE_BYTES]


class Budget:
    """Bytes, or places, that may be held at once. Whoever waits is served in order; alone, anything fits.

    whole  what this is a part of: everything taken here is taken there as well.
    """

    def __init__(self, limit: int, whole: Budget | None = None) -> None:
        self._limit, self._whole = limit, whole
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.used = 0

    def take_now(self, size: int) -> None:
        """For what is here already and small."""
        self.used += size
        if self._whole is not None:
            self._whole.take_now(size)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def take(self, size: int) -> None:
        await self._take(size)
        if self._whole is not None:
            try:
                await self._whole.take(size)
            except asyncio.CancelledError:
                self._give(size)
                raise

    def give(self, size: int) -> None:
        self._give(size)
        if self._whole is not None:
            self._whole.give(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and self.fits(size):
            self.used += size
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give(size)
            raise

    def _give(self, size: int) -> None:
        self.used -= size
        while self._waiting and (self._waiting[0][1].done() or self.fits(self._waiting[0][0])):
            waited, future = self._waiting.popleft()
            if not future.done():
                self.used += waited
                future.set_result(None)

    def fits(self, size: int) -> bool:
        """Whether so much may be taken now."""
        return self.used == 0 or self.used + size <= self._limit
