"""The lane: every small frame of a link on one stream, one carrier write for all that a turn of the event loop made.

A write per frame costs a carrier 30 to 900 µs; coalesced, 256 callers share it. While one call is alone on the
link its frames are written at once, without waking the lane's task: 5 to 10 µs a side quicker (with 16 callers the same
would cost twice the CPU, since every frame written alone is also answered alone).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any

from shoal.mesh.carrier import Stream
from shoal.mesh.rpc.limits import LANE_QUEUE_BYTES

WRITE_BYTES = 128 * 2**10
"""At most this much (and one frame) is handed over at once, so that something urgent waits for no more."""


class Lane:
    """`queued` is what the carrier has not taken yet, in bytes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._queues: dict[int, deque[bytes]] = {}
        self._waiting: deque[tuple[int, bytes, asyncio.Future[None]]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._begun: _Begun | None = None
        self._may_write = False
        self.queued = 0

    def begin_turn(self, is_lone: bool) -> None:
        """Frames were read. A lone call's next frame may leave at once; among many it waits for the others."""
        self._may_write = is_lone

    def push(self, priority: int, frame: bytes) -> None:
        """Queue without waiting: for what a peer's own frames bring about, and whoever went through `send`."""
        if self._wake is not None and self._may_write:
            self._write_now(frame)
            return
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
        queue.append(frame)
        self.queued += len(frame)
        self._wake_up()

    async def send(self, priority: int, frame: bytes) -> None:
        """Queue, waiting while LANE_QUEUE_BYTES are. Cancelled while it waits, the frame is not sent."""
        if self.queued < LANE_QUEUE_BYTES:
            self.push(priority, frame)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((priority, frame, future))
        await future

    async def run(self) -> None:
        """Write until the stream fails."""
        while True:
            if not self.queued:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
            if self._begun is not None:
                size = self._begun.size
                await self._begun
                self._begun = None
            else:
                data = self._take()
                size = len(data)
                await self._stream.write(data)
            self.queued -= size
            self._admit()

    def _write_now(self, frame: bytes) -> None:
        """Begin the write here; if the carrier has no room, the lane's task goes on with it."""
        self._may_write = False
        begun = _Begun(self._stream.write(frame), len(frame))
        if not begun.is_over:
            self._begun = begun
            self.queued += len(frame)
            self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None:
            if not self._wake.done():
                self._wake.set_result(None)
            self._wake = None

    def _take(self) -> bytes:
        """Frames of the highest priority first."""
        frames: list[bytes] = []
        size = 0
        for priority in sorted(self._queues, reverse=True):
            queue = self._queues[priority]
            while queue and size < WRITE_BYTES:
                frames.append(queue.popleft())
                size += len(frames[-1])
            if not queue:
                del self._queues[priority]
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _admit(self) -> None:
        while self._waiting and self.queued < LANE_QUEUE_BYTES:
            priority, frame, future = self._waiting.popleft()
            if not future.done():
                self.push(priority, frame)
                future.set_result(None)


class _Begun:
    """A write of `size` bytes that has run up to where it first waits. Awaited, it goes on, or raises how it failed."""

    def __init__(self, write: Coroutine[Any, Any, None], size: int) -> None:
        self._write, self.size = write, size
        self._error: Exception | None = None
        self._waits_for: Any = None
        self.is_over = False
        try:
            self._waits_for = write.send(None)
        except StopIteration:
            self.is_over = True
        except Exception as error:
            self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        if self._error is not None:
            raise self._error
        waits_for = self._waits_for
        with contextlib.suppress(StopIteration):  # the write's own, which says that it is over
            while True:
                try:
                    answer = yield waits_for
                except BaseException as error:  # a cancellation is the write's to handle
                    waits_for = self._write.throw(error)
                else:
                    waits_for = self._write.send(answer)
