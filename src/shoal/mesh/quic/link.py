"""One QUIC connection to one peer, its streams and their end."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed
from shoal.mesh.carrier import LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import binding, failures, path
from shoal.mesh.quic.inbox import Inbox
from shoal.mesh.quic.stream import Library, QuicStream

MAX_STREAMS = 256
"""Streams the other side may have open at once; further ones wait at its side."""

BACKLOG = 64
"""Streams that have arrived and were not accepted; QUIC holds back the rest."""

WINDOW_BYTES = 16 * 2**20
"""Bytes on their way to us on one connection: 100 MB/s at 160 ms."""

MAX_REASON = failures.MAX_REASON


@dataclass(frozen=True, slots=True)
class Origin:
    """How a link came to be. `is_together`: a common peer told both sides to dial at the same time."""

    is_dialer: bool
    is_together: bool
    clock: Clock


class QuicLink:
    """See `carrier.Link`."""

    def __init__(self, connection: Any, origin: Origin) -> None:
        self._connection = connection
        self._clock = origin.clock
        self._peer = PeerId(connection.remote_id().to_bytes())
        self.peer_name = self._peer.short
        self.library: Library = binding.speech()
        self._streams: weakref.WeakSet[QuicStream] = weakref.WeakSet()
        self._inbox: Inbox[QuicStream] = Inbox(BACKLOG)
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._on_end: list[Callable[[], None]] = []
        self._is_helped = origin.is_together or path.was_helped(self._routes())
        self._info = LinkInfo("quic", "direct", "", origin.clock.monotonic(), origin.is_dialer)
        self._info = self.info()
        connection.set_receive_window(WINDOW_BYTES)
        connection.set_max_concurrent_bi_streams(MAX_STREAMS)
        self.spawn(self._watch_end())
        self.spawn(self._pump_streams())

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def is_open(self) -> bool:
        return not self._ended.done()

    def when_ended(self, action: Callable[[], None]) -> None:
        """Call `action` once, when the link ends; now if it has."""
        if self._ended.done():
            action()
        else:
            self._on_end.append(action)

    def mark_together(self) -> None:
        """A common peer told both sides to dial: an IP path of this link was punched."""
        self._is_helped = True

    # ---- what it is

    def _routes(self) -> tuple[path.Route, ...]:
        return tuple(
            path.Route(at.id, at.remote_addr, at.is_relay, at.is_selected, at.rtt_ms) for at in self._connection.paths()
        )

    def info(self) -> LinkInfo:
        """The link as it is now; as it last was once it has ended."""
        route = path.selected(self._routes())
        if route is None or self._ended.done():
            return self._info
        stats = self._connection.stats()
        before = self._info
        self._info = LinkInfo(
            before.carrier,
            path.kind(route, self._is_helped),
            route.remote,
            before.since,
            before.is_dialer,
            route.rtt_ms / 1000,
            stats.udp_tx_bytes,
            stats.udp_rx_bytes,
            stats.lost_packets,
        )
        return self._info

    # ---- streams

    async def open(self, priority: int = 0) -> QuicStream:
        try:
            pair = await self._connection.open_bi()
            if priority:
                await pair.send().set_priority(priority)
        except Exception as error:
            raise failures.of_link(self._why(failures.plain(error)), self.peer_name) from error
        return self._adopt(pair)

    async def accept(self) -> QuicStream:
        stream = await self._inbox.take()
        self._room.set()
        return stream

    async def _pump_streams(self) -> None:
        try:
            while True:
                stream = self._adopt(await self._connection.accept_bi())
                while not self._inbox.put(stream) and self.is_open:
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:
            self._end(failures.plain(error))

    def _adopt(self, pair: Any) -> QuicStream:
        stream = QuicStream(self, pair)
        self._streams.add(stream)
        return stream

    # ---- the end

    async def close(self, reason: str = "") -> None:
        if self.is_open:
            self._end(f"closed here: {reason[:MAX_REASON]}" if reason else "closed here", drop=True)
            self._connection.close(0, reason[:MAX_REASON].encode())
        current = asyncio.current_task()
        await asyncio.gather(*(task for task in self._tasks if task is not current), return_exceptions=True)

    async def closed(self) -> str:
        return await asyncio.shield(self._ended)

    async def _watch_end(self) -> None:
        try:
            text = await self._connection.closed()
        except Exception as error:
            text = failures.plain(error)
        self._end(text)

    def _end(self, text: str, drop: bool = False) -> None:
        if self._ended.done():
            return
        self.info()
        why = failures.reason(text)
        self._ended.set_result(why)
        error = LinkClosed(f"the link to peer {self.peer_name} has ended: {why}")
        self._inbox.end(error)
        self._room.set()
        for stream in list(self._streams):
            stream.fail(error, drop)
        for action in self._on_end:
            action()
        self._on_end.clear()

    def _why(self, text: str) -> str:
        return self._ended.result() if self._ended.done() else text

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
