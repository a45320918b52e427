"""One stream of a TCP link: what may be sent (credit), what has come, and who has ended.

    sending    [ written | waiting for credit or for the socket ]
    receiving  [ read | unread, at most `window` bytes ]

The reader grants credit when half a window has been read. A reader that keeps up gets a larger window where the path is
longer than the window, out of a budget of its link: a fast and long path is filled, a crowd of streams cannot take all
memory, and on a short path little is under way for small messages of other streams to wait behind (with 4 MiB on
loopback a call beside an upload took 6.9 ms, with 512 KiB 1.8, and the upload was no slower).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Protocol

from shoal.core.errors import LinkClosed, PeerFault, StreamReset
from shoal.mesh.carrier import Bytes
from shoal.mesh.tcp.frames import CREDIT, DATA, FINISH, PAYLOAD_BYTES, RESET, header
from shoal.mesh.waiting import Allowance, again

START_WINDOW = 256 * 1024
SHORT_WINDOW = 512 * 1024
MAX_WINDOW = 4 * 2**20
SHORT_S = 0.002
"""Round trips up to this need no more than SHORT_WINDOW: 256 MB/s, and more the shorter they are."""
CRUMB_BYTES = 1024
"""Parts up to this are joined as they come: a window of two-byte frames would take thirty times its size."""
FRAMES_A_TURN = 4
"""Frames a writer sends before others on its event loop get a turn, should the socket take them all."""


class Sender(Protocol):
    """What a stream needs of its link."""

    def say(self, frame: bytes) -> None:
        """A frame without payload, ahead of all data."""
        ...

    async def send(self, priority: int, head: bytes, payload: memoryview, unsent: Callable[[int], None]) -> None:
        """A frame, in its turn. Cancelled before that, `unsent` is called with its size; otherwise it was sent."""
        ...

    def hold(self, size: int) -> None:
        """So many bytes more wait to be read; negative: so many less."""
        ...

    def grow(self, size: int) -> bool:
        """Whether the link's budget has `size` bytes left; they are taken then. Negative gives back."""
        ...

    def pace(self) -> tuple[float, float]:
        """Now, and how long a round trip takes without anything in its way; both seconds. 0: not known yet."""
        ...

    def begin(self, stream: TcpStream) -> int:
        """Tell the other side of a new stream; its number. What is sent next goes along with it."""
        ...

    def forget(self, stream: TcpStream) -> None: ...


class TcpStream:
    """`number` is 0 until the first byte: numbers rise in the order in which streams are seen by the other side."""

    def __init__(self, link: Sender, priority: int, number: int = 0) -> None:
        self.number = number
        self.is_mine = number == 0
        self.priority = priority
        self._link = link
        self._room = Allowance(START_WINDOW)
        self._writing = asyncio.Lock()
        self._window = START_WINDOW
        self._credit = START_WINDOW
        self._read_since = 0
        self._trial_bytes = 0
        self._trial_began = link.pace()[0]
        self._parts: deque[bytes] = deque()
        self._unread = 0
        self._arrived = asyncio.Event()
        self._error: LinkClosed | None = None
        self._is_finished = False
        self._is_ended = False

    # ---- the contract -----------------------------------------------------------------------------------

    async def write(self, data: Bytes) -> None:
        view = memoryview(data).cast("B")
        async with self._writing:
            self._check_writable()
            if view:
                self._begin()
            for turn in itertools.count(1):
                if not view:
                    return
                size = await self._room.take(min(len(view), PAYLOAD_BYTES))
                self._check_writable()
                await self._link.send(self.priority, header(DATA, size, self.number), view[:size], self._room.give)
                view = view[size:]
                if turn % FRAMES_A_TURN == 0:
                    await asyncio.sleep(0)

    async def read(self, max_bytes: int) -> bytes:
        while not self._parts:
            if self._error is not None:
                raise again(self._error)
            if self._is_ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._take(max_bytes)
        self._keep(-len(data))
        if self._error is None and not self._is_ended:
            self._grant(len(data))
        return data

    async def finish(self) -> None:
        if self._is_finished and self._error is None:
            return
        async with self._writing:
            self._check_writable()
            self._begin()
            self._is_finished = True
            try:
                await self._link.send(self.priority, header(FINISH, 0, self.number), memoryview(b""), self._unfinish)
            finally:
                self._settle()

    def reset(self) -> None:
        if self._error is None and not (self._is_finished and self._is_ended):
            if self.number:
                self._link.say(header(RESET, 0, self.number))
            self.fail(StreamReset("this side gave up this stream"))
        elif self._error is None:
            self._drop()

    # ---- the link's side --------------------------------------------------------------------------------

    def receive(self, payload: memoryview) -> None:
        """Bytes have come. PeerFault for more than was granted, or after the end."""
        self._credit -= len(payload)
        if self._credit < 0 or self._is_ended:
            raise PeerFault(f"stream {self.number}: bytes {'after its end' if self._is_ended else 'without credit'}")
        if payload:
            if self._parts and len(self._parts[-1]) + len(payload) <= CRUMB_BYTES:
                self._parts[-1] += payload
            else:
                self._parts.append(bytes(payload))
            self._keep(len(payload))
            self._arrived.set()

    def end(self) -> None:
        """The other side has finished."""
        if self._is_ended:
            raise PeerFault(f"stream {self.number}: finished twice")
        self._is_ended = True
        self._arrived.set()
        self._settle()

    def granted(self, size: int) -> None:
        if self._room.amount + size > 2 * MAX_WINDOW:
            raise PeerFault(f"stream {self.number}: credit of {self._room.amount + size} bytes, more than any window")
        self._room.give(size)

    def fail(self, error: LinkClosed) -> None:
        """Both directions end with `error`; what was not read is gone."""
        if self._error is None and not (self._is_finished and self._is_ended):
            self._error = error
            self._drop()
            self._room.fail(error)
            self._arrived.set()
            self._release()

    # ---- inside -----------------------------------------------------------------------------------------

    def _keep(self, size: int) -> None:
        self._unread += size
        self._link.hold(size)

    def _drop(self) -> None:
        self._parts.clear()
        self._keep(-self._unread)

    def _unfinish(self, _size: int) -> None:
        self._is_finished = False

    def _begin(self) -> None:
        if not self.number:
            self.number = self._link.begin(self)

    def _take(self, most: int) -> bytes:
        """Up to `most` unread bytes, joined where several parts fit."""
        if len(self._parts[0]) > most:
            part = self._parts[0]
            self._parts[0] = part[most:]
            return part[:most]
        if self._unread <= most:
            whole = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
            self._parts.clear()
            return whole
        parts, size = [], 0
        while size + len(self._parts[0]) <= most:
            parts.append(self._parts.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _grant(self, size: int) -> None:
        self._read_since += size
        if self._read_since < self._window // 2:
            return
        more = self._read_since
        if self._is_too_small() and not self._parts and self._window < MAX_WINDOW and self._link.grow(self._window):
            more += self._window
            self._window *= 2
        self._read_since = 0
        self._credit += more
        self._link.say(header(CREDIT, more, self.number))

    def _is_too_small(self) -> bool:
        """Whether two windows were read in four round trips of a long path: the window is what the sender waits for."""
        if self._window < SHORT_WINDOW:
            return True
        self._trial_bytes += self._read_since
        if self._trial_bytes < 2 * self._window:
            return False
        now, rtt_s = self._link.pace()
        took_s = now - self._trial_began
        self._trial_bytes, self._trial_began = 0, now
        return rtt_s > SHORT_S and took_s < 4 * rtt_s

    def _check_writable(self) -> None:
        if self._error is not None:
            raise again(self._error)
        if self._is_finished:
            raise StreamReset("this side has finished this stream; open another")

    def _settle(self) -> None:
        if self._is_finished and self._is_ended and self._error is None:
            self._room.fail(StreamReset("this side has finished this stream; open another"))
            self._release()

    def _release(self) -> None:
        self._link.grow(START_WINDOW - self._window)
        self._link.forget(self)
