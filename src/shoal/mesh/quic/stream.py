"""One QUIC stream: at most one call of the library each way, and a small buffer before the outgoing one.

Rules that stay true in this file:
- a cancelled `read` or `write` loses nothing: the library's calls belong to the stream, which goes on with them;
- at most HIGH_BYTES and one call's data wait to leave; beyond it `write` waits. What comes waits inside the library;
- what the library takes or has at once costs no turn of the event loop; small writes made while it has no room leave
  together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from shoal.core.errors import LinkClosed, StreamReset
from shoal.mesh.carrier import Bytes
from shoal.mesh.quic import failures
from shoal.mesh.quic.foreign import Underway

CALL_BYTES = 256 * 1024
"""Bytes of one call of the library; more per call gains nothing measurable."""

FIRST_READ = 16 * 1024
"""The library clears as much memory as is asked for: small reads ask for little, and for more while they are filled."""

HIGH_BYTES = 1024 * 1024

TURN_BYTES = 64 * 1024
"""After a write of so much others on the event loop get a turn."""


class Library(Protocol):
    """How the library's streams are read and written."""

    def read(self, stream: Any, limit: int) -> Underway: ...

    def write_all(self, stream: Any, data: Bytes) -> Underway: ...


class Owner(Protocol):
    """The stream's link."""

    peer_name: str
    library: Library

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
        self._reading: Underway | None = None
        self._rest: Bytes = b""
        self._ask_bytes = FIRST_READ
        self._readable = asyncio.Event()
        self._has_ended = False
        self._is_deaf = False
        self._writing: Underway | None = None
        self._writing_bytes = 0
        self._leaving: deque[memoryview] = deque()
        self._leaving_bytes = 0
        self._room = asyncio.Event()
        self._is_finishing = False
        self._is_finished = asyncio.Event()

    # ---- reading

    async def read(self, max_bytes: int) -> bytes:
        if max_bytes < 1:
            raise ValueError(f"expected at least 1 byte to read, found {max_bytes}")
        while not self._rest:
            if self._has_ended:
                return b""
            if self._is_deaf:
                self._raise_failure()
            elif self._reading is None:
                self._start_read(max_bytes)
            else:
                self._raise_failure()
                self._readable.clear()
                await self._readable.wait()
        return self._take(max_bytes)

    def _take(self, max_bytes: int) -> bytes:
        chunk, self._rest = self._rest, b""
        if len(chunk) > max_bytes:
            whole = memoryview(chunk)
            chunk, self._rest = whole[:max_bytes], whole[max_bytes:]
        return bytes(chunk)

    def _start_read(self, max_bytes: int) -> None:
        call = self._reading = self._owner.library.read(self._recv, min(self._ask_bytes, max_bytes))
        if call.done():
            self._on_read(call)
        else:
            call.add_done_callback(self._on_read)

    def _on_read(self, call: Underway) -> None:
        if call is not self._reading:  # given up
            return
        self._reading = None
        try:
            self._rest = call.result()
        except Exception as error:
            self._is_deaf = True
            self.fail(failures.of_stream(error, self._owner.peer_name))
        else:
            self._has_ended = not self._rest
            self._adapt(len(self._rest))
        self._readable.set()

    def _adapt(self, size: int) -> None:
        if size >= self._ask_bytes:
            self._ask_bytes = min(2 * size, CALL_BYTES)
        elif size < self._ask_bytes // 8:
            self._ask_bytes = max(self._ask_bytes // 2, FIRST_READ)

    # ---- writing

    async def write(self, data: Bytes) -> None:
        self._raise_failure()
        if self._is_finishing:
            raise StreamReset("nothing can be written to a stream that was finished here")
        whole = memoryview(data).cast("B")
        done = 0
        while done < len(whole) and self._writing is None:
            self._begin_write(data if len(whole) <= CALL_BYTES else whole[done : done + CALL_BYTES])
            done += CALL_BYTES
        self._queue(whole[done:])
        if len(whole) >= TURN_BYTES:
            await asyncio.sleep(0)
        while self._leaving_bytes >= HIGH_BYTES and self._failure is None:
            self._room.clear()
            await self._room.wait()
        self._raise_failure()

    async def finish(self) -> None:
        self._raise_failure()
        if not self._is_finishing:
            self._is_finishing = True
            self._drain()
        await self._is_finished.wait()
        self._raise_failure()

    def _queue(self, data: memoryview) -> None:
        if len(data):
            own = memoryview(bytes(data))
            self._leaving.extend(own[start : start + CALL_BYTES] for start in range(0, len(own), CALL_BYTES))
            self._leaving_bytes += len(own)

    def _begin_write(self, chunk: Bytes) -> None:
        """`chunk` is the library's when this returns, and counts as leaving until it has left."""
        call = self._writing = self._owner.library.write_all(self._send, chunk)
        self._writing_bytes = len(chunk)
        self._leaving_bytes += self._writing_bytes
        if call.done():
            self._written(call)
        else:
            call.add_done_callback(self._on_written)

    def _on_written(self, call: Underway) -> None:
        if call is self._writing:  # otherwise it was given up
            self._written(call)
            self._drain()

    def _written(self, call: Underway) -> None:
        self._writing = None
        self._leaving_bytes -= self._writing_bytes
        self._room.set()
        try:
            call.result()
        except Exception as error:
            self.fail(failures.of_stream(error, self._owner.peer_name))

    def _drain(self) -> None:
        while self._leaving and self._writing is None:
            chunk = self._gather()
            self._leaving_bytes -= len(chunk)
            self._begin_write(chunk)
        if self._is_finishing and self._writing is None and self._failure is None:
            self._owner.spawn(self._end_out())

    def _gather(self) -> Bytes:
        """The next CALL_BYTES or fewer."""
        parts = [self._leaving.popleft()]
        size = len(parts[0])
        while self._leaving and size + len(self._leaving[0]) <= CALL_BYTES:
            parts.append(self._leaving.popleft())
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _end_out(self) -> None:
        try:
            await self._send.finish()
            self._is_finished.set()
        except Exception as error:
            self.fail(failures.of_stream(error, self._owner.peer_name))

    # ---- ending

    def reset(self) -> None:
        if self._failure is None and not (self._has_ended and self._is_finished.is_set()):
            self._give_up_calls()
            self._owner.spawn(self._abort())
        self.fail(StreamReset("the stream was given up here"), drop=True)

    def _give_up_calls(self) -> None:
        """A call under way holds its half of the stream, which then cannot be reset."""
        for call in (self._reading, self._writing):
            if call is not None:
                call.cancel()
        self._reading = self._writing = None

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
            self._rest = b""
            self._is_deaf, self._has_ended = True, False
        for event in (self._readable, self._room, self._is_finished):
            event.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
