"""One side of a link in the simulated network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from shoal.core.errors import LinkClosed
from shoal.mesh.carrier import LinkInfo
from shoal.mesh.memory.network import Network
from shoal.mesh.memory.pipe import Pipe, Route
from shoal.mesh.memory.stream import MemoryStream
from shoal.mesh.peer_id import PeerId
from shoal.mesh.waiting import Allowance, Inbox

MAX_STREAMS = 1024
"""Streams one side may have open at once; `open` waits for room."""
SILENCE_S = 15.0
"""A link whose route is cut for that long has ended."""
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class End:
    """What one side of a new link knows."""

    peer: PeerId
    info: LinkInfo
    route: Route


class MemoryLink:
    """`other` is the opposite side, set by `connect`; everything for it goes through this side's pipe."""

    other: MemoryLink

    def __init__(self, network: Network, end: End) -> None:
        self.end = end
        self.pipe = Pipe(network, end.route)
        self.on_end: Callable[[], None] = lambda: None
        self.on_confirm: Callable[[], None] = lambda: None
        self._network = network
        self._streams: dict[tuple[bool, int], MemoryStream] = {}
        self._opened = 0
        self._seen = 0
        self._unseen: set[int] = set()
        self._room = Allowance(MAX_STREAMS)
        self._incoming: Inbox[MemoryStream] = Inbox()
        self._sent = 0
        self._received = 0
        self._reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._cut_since: float | None = None
        network.watchers[self] = None

    @property
    def peer(self) -> PeerId:
        return self.end.peer

    def info(self) -> LinkInfo:
        rtt_s = 2 * self.end.route.conditions(self._network).delay_s
        return replace(
            self.end.info,
            rtt_s=rtt_s,
            bytes_sent=self._sent,
            bytes_received=self._received,
            lost_packets=self.pipe.lost,
        )

    async def open(self, priority: int = 0) -> MemoryStream:
        await self._room.take(1)
        self._opened += 1
        return self._stream((True, self._opened), priority)

    async def accept(self) -> MemoryStream:
        return await self._incoming.get()

    async def close(self, reason: str = "") -> None:
        if not self._reason.done():
            text = reason[:MAX_REASON]
            self.pipe.send(0, 2**30, lambda: self.other.fail(f"closed by the other side: {text or 'no reason given'}"))
            self.fail(f"closed by this side: {text or 'no reason given'}")

    async def closed(self) -> str:
        return await asyncio.shield(self._reason)

    def fail(self, reason: str) -> None:
        """The end of this side, whatever the other knows."""
        if self._reason.done():
            return
        self._reason.set_result(reason)
        error = LinkClosed(f"the link to {self.peer.short} has ended: {reason}")
        self._network.watchers.pop(self, None)
        self.pipe.close()
        self._room.fail(error)
        self._incoming.close(error)
        for stream in list(self._streams.values()):
            stream.fail(error)
        self.on_end()

    def check(self) -> None:
        """The network has changed: start, or stop, counting silence."""
        now = self._network.clock.monotonic()
        if self.end.route.is_open(self._network):
            self._cut_since = None
        elif self._cut_since is None:
            self._cut_since = now
            self._network.agenda.after(SILENCE_S, lambda: self._give_up(now))

    def _give_up(self, since: float) -> None:
        if self._cut_since == since:
            self.fail(f"nothing heard for {SILENCE_S:.0f} s")

    def _stream(self, key: tuple[bool, int], priority: int) -> MemoryStream:
        is_mine, number = key

        def send(size: int, urgency: int, act: Callable[[MemoryStream], None]) -> None:
            self._sent += size
            self.pipe.send(size, urgency, lambda: self.other._arrive((not is_mine, number), size, act, urgency))

        def ended() -> None:
            if self._streams.pop(key, None) is not None and is_mine:
                self._room.give(1)

        stream = self._streams[key] = MemoryStream(send, priority, ended)
        return stream

    def _arrive(self, key: tuple[bool, int], size: int, act: Callable[[MemoryStream], None], priority: int) -> None:
        if self._reason.done():
            return
        self._received += size
        stream = self._streams.get(key)
        if stream is None and not key[0] and self._is_new(key[1]):
            stream = self._stream(key, priority)
            self._incoming.put(stream)
        if stream is not None:
            act(stream)

    def _is_new(self, number: int) -> bool:
        """Whether the other side's stream `number` was never seen. Loss may show a later one first."""
        if number > self._seen:
            self._unseen.update(range(self._seen + 1, number))
            self._seen = number
            return True
        is_new = number in self._unseen
        self._unseen.discard(number)
        return is_new


def connect(network: Network, dialer: End, acceptor: End) -> tuple[MemoryLink, MemoryLink]:
    """Both sides of a new link."""
    one, other = MemoryLink(network, dialer), MemoryLink(network, acceptor)
    one.other, other.other = other, one
    return one, other
