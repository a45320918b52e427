"""The lane: every small frame of a link on one stream, one carrier write for all that a turn of the event loop made.

A write per frame costs a carrier 30 to 900 µs; coalesced, 256 callers share it.
"""

from __future__ import annotations

import asyncio
from collections import deque

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
        self.queued = 0

    def push(self, priority: int, frame: bytes) -> None:
        """Queue without waiting: for what a peer's own frames bring about, and whoever went through `send`."""
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
        queue.append(frame)
        self.queued += len(frame)
        if self._wake is not None:
            self._wake.set_result(None)
            self._wake = None

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
            data = self._take()
            await self._stream.write(data)
            self.queued -= len(data)
            self._admit()

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
