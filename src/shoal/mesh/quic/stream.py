"""One QUIC stream: a small buffer each way, with a pump between it and the library.

Rules that stay true in this file:
- a cancelled `read` or `write` loses nothing: the library's calls belong to the pumps, which nobody cancels;
- at most HIGH_BYTES and one call's data wait in either direction; beyond it `write` waits, or the peer does;
- small writes of one turn of the event loop leave in one call: a call costs 0.1 ms, a byte nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from shoal.core.errors import LinkClosed, StreamReset
from shoal.mesh.carrier import Bytes
from shoal.mesh.quic import failures

CALL_BYTES = 256 * 1024
"""Bytes of one call of the library; more per call gains nothing measurable."""

HIGH_BYTES = 1024 * 1024


class Owner(Protocol):
    """The stream's link."""

    peer_name: str

    def spawn(self, work: Any) -> None:
        """Run a coroutine for as long as it takes; the link waits for it when it closes."""
        ...


class QuicStream:
    """See `carrier.Stream`."""

    def __init__(self, owner: Owner, pair: Any) -> None:
        self._owner = owner
        self._send = pair.send()
        self._recv = pair.recv()
        self._failure: LinkClosed | None = None
        self._arrived: deque[bytes | memoryview] = deque()
        self._arrived_bytes = 0
        self._leaving: deque[memoryview] = deque()
        self._leaving_bytes = 0
        self._has_ended = False
        self._is_finishing = False
        self._is_finished = asyncio.Event()
        self._is_pumping_in = False
        self._is_pumping_out = False
        self._readable = asyncio.Event()
        self._room_in = asyncio.Event()
        self._room_out = asyncio.Event()

    # ---- reading

    async def read(self, max_bytes: int) -> bytes:
        if max_bytes < 1:
            raise ValueError(f"expected at least 1 byte to read, found {max_bytes}")
        if not self._is_pumping_in and self._failure is None:
            self._is_pumping_in = True
            self._owner.spawn(self._pump_in())
        while not self._arrived:
            if self._has_ended:
                return b""
            self._raise_failure()
            self._readable.clear()
            await self._readable.wait()
        return self._take(max_bytes)

    def _take(self, max_bytes: int) -> bytes:
        chunk = self._arrived.popleft()
        if len(chunk) > max_bytes:
            whole = memoryview(chunk)
            self._arrived.appendleft(whole[max_bytes:])
            chunk = whole[:max_bytes]
        self._arrived_bytes -= len(chunk)
        self._room_in.set()
        return bytes(chunk)

    async def _pump_in(self) -> None:
        try:
            while chunk := await self._recv.read(CALL_BYTES):
                self._arrived.append(chunk)
                self._arrived_bytes += len(chunk)
                self._readable.set()
                while self._arrived_bytes >= HIGH_BYTES and self._failure is None:
                    self._room_in.clear()
                    await self._room_in.wait()
            self._has_ended = True
        except Exception as error:
            self.fail(failures.of_stream(error, self._owner.peer_name))
        self._readable.set()

    # ---- writing

    async def write(self, data: Bytes) -> None:
        self._raise_failure()
        if self._is_finishing:
            raise StreamReset("nothing can be written to a stream that was finished here")
        if not len(data):
            return
        whole = memoryview(bytes(data))
        self._leaving.extend(whole[start : start + CALL_BYTES] for start in range(0, len(whole), CALL_BYTES))
        self._leaving_bytes += len(whole)
        self._start_out()
        while self._leaving_bytes >= HIGH_BYTES and self._failure is None:
            self._room_out.clear()
            await self._room_out.wait()
        self._raise_failure()

    async def finish(self) -> None:
        self._raise_failure()
        self._is_finishing = True
        self._start_out()
        await self._is_finished.wait()
        self._raise_failure()

    def _start_out(self) -> None:
        if not self._is_pumping_out:
            self._is_pumping_out = True
            self._owner.spawn(self._pump_out())

    async def _pump_out(self) -> None:
        try:
            while self._leaving and self._failure is None:
                chunk = self._gather()
                await self._send.write_all(chunk)
                self._leaving_bytes -= len(chunk)
                self._room_out.set()
            if self._is_finishing and not self._is_finished.is_set() and self._failure is None:
                await self._send.finish()
                self._is_finished.set()
        except Exception as error:
            self.fail(failures.of_stream(error, self._owner.peer_name))
        self._is_pumping_out = False

    def _gather(self) -> memoryview | bytes:
        """The next CALL_BYTES or fewer; they count as leaving until they have left."""
        parts = [self._leaving.popleft()]
        size = len(parts[0])
        while self._leaving and size + len(self._leaving[0]) <= CALL_BYTES:
            parts.append(self._leaving.popleft())
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ---- ending

    def reset(self) -> None:
        if self._failure is None and not (self._has_ended and self._is_finished.is_set()):
            self._owner.spawn(self._abort())
        self.fail(StreamReset("the stream was given up here"), drop=True)

    async def _abort(self) -> None:
        for give_up in (self._send.reset, self._recv.stop):
            try:
                await give_up(0)
            except Exception as error:  # ended already: the library says so in several ways, none of them matters
                failures.plain(error)

    def fail(self, error: LinkClosed, drop: bool = False) -> None:
        """Wake everybody who waits with `error`; the first one stays. What has arrived can be read unless `drop`."""
        if self._failure is None:
            self._failure = error
            self._leaving.clear()
        if drop:
            self._arrived.clear()
            self._has_ended = False
        for event in (self._readable, self._room_in, self._room_out, self._is_finished):
            event.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
