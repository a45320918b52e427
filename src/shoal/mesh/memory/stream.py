"""A stream of the simulated network: numbered pieces, put in order on arrival, at most WINDOW unread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from shoal.core.errors import LinkClosed, StreamReset
from shoal.mesh.carrier import Bytes
from shoal.mesh.waiting import Allowance, again

WINDOW = 256 * 1024
PIECE = 16 * 1024
END = b""
"""The piece that says: no more from this side."""

Send = Callable[[int, int, Callable[["MemoryStream"], None]], None]
"""(bytes, priority, what to do to the other side's stream)"""


class MemoryStream:
    def __init__(self, send: Send, priority: int, on_end: Callable[[], None]) -> None:
        self._send = send
        self._priority = priority
        self._on_end = on_end
        self._room = Allowance(WINDOW)
        self._writing = asyncio.Lock()
        self._sent = 0
        self._early: dict[int, bytes] = {}
        self._next = 0
        self._pieces: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._error: LinkClosed | None = None
        self._is_finished = False
        self._is_ended = False

    async def write(self, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        async with self._writing:
            self._check_open()
            start = 0
            while start < len(view):
                size = await self._room.take(min(PIECE, len(view) - start))
                self._check_open()
                self._piece(bytes(view[start : start + size]))
                start += size

    async def read(self, max_bytes: int) -> bytes:
        while not self._pieces:
            if self._error is not None:
                raise again(self._error)
            if self._is_ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self._send(0, self._priority, lambda other: other._room.give(len(piece)))
        self._settle()
        return piece

    async def finish(self) -> None:
        if self._is_finished and self._error is None:
            return
        async with self._writing:
            self._check_open()
            self._is_finished = True
            self._piece(END)
            self._settle()

    def reset(self) -> None:
        if self._error is None and not (self._is_finished and self._is_ended and not self._pieces):
            if self._sent or self._next:
                given_up = StreamReset("the other side gave up this stream")
                self._send(0, self._priority, lambda other: other.fail(given_up))
            self.fail(StreamReset("this side gave up this stream"))

    def fail(self, error: LinkClosed) -> None:
        """Both directions end with `error`; what was not read is gone."""
        if self._error is None:
            self._error = error
            self._pieces.clear()
            self._early.clear()
            self._room.fail(error)
            self._arrived.set()
            self._on_end()

    def receive(self, number: int, piece: bytes) -> None:
        """A piece arrives, perhaps before those in front of it."""
        if self._error is not None:
            return
        self._early[number] = piece
        while self._next in self._early:
            piece = self._early.pop(self._next)
            self._next += 1
            if piece:
                self._pieces.append(piece)
            else:
                self._is_ended = True
        self._arrived.set()
        self._settle()

    def _piece(self, piece: bytes) -> None:
        number, self._sent = self._sent, self._sent + 1
        self._send(len(piece), self._priority, lambda other: other.receive(number, piece))

    def _check_open(self) -> None:
        if self._error is not None:
            raise again(self._error)
        if self._is_finished:
            raise StreamReset("this side has finished this stream; open another")

    def _settle(self) -> None:
        """Forget the stream once both sides have finished and everything is read."""
        if self._is_finished and self._is_ended and not self._pieces and self._error is None:
            self._on_end()
