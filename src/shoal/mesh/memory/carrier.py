"""The carrier of the simulated network: probes, hole punching and relays as a real one does them.

A dial probes every endpoint and says hello through every relay at once. Through a relay the other side learns where to
punch; a direct link that comes about within PUNCH_S is preferred, else the relayed one is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

from shoal.core.errors import LinkClosed, Unreachable
from shoal.mesh.address import Address
from shoal.mesh.carrier import LinkInfo, Path
from shoal.mesh.memory.dial import PROBE_S, PUNCH_S, Attempt, Hello, Punch, Welcome, endpoint, failures, text
from shoal.mesh.memory.link import End, MemoryLink, connect
from shoal.mesh.memory.nat import Endpoint
from shoal.mesh.memory.network import OBSERVER, Host, Network
from shoal.mesh.memory.pipe import Route
from shoal.mesh.peer_id import PeerId
from shoal.mesh.waiting import Inbox, again

HALF_OPEN_S = 10.0


class MemoryCarrier:
    """`peer` at `host`, registered at `relays`. Attempts are numbered, so two runs do the same."""

    def __init__(self, network: Network, host: Host, peer: PeerId, relays: Sequence[str] = ()) -> None:
        self.peer = peer
        self.network = network
        self.host = host
        self.links: dict[MemoryLink, None] = {}
        self._relays = tuple(relays)
        self._port = host.free_port()
        self._numbers = itertools.count()
        self._attempts: dict[int, Attempt] = {}
        self._half_open: dict[tuple[PeerId, int, str], Welcome] = {}
        self._incoming: Inbox[MemoryLink] = Inbox()
        self._closed: LinkClosed | None = None
        host.ports[self._port] = self._datagram
        host.residents.append(self)
        for url in self._relays:
            network.relays[url].members[peer] = (host, self._from_relay)

    @property
    def name(self) -> str:
        return "memory"

    def address(self) -> Address:
        """The inside endpoint, and the public one where the NAT keeps one, as any public observer would tell it."""
        own = (self.host.ip, self._port)
        nat = self.host.nat
        is_steady = nat is not None and nat.kind in ("full_cone", "port_restricted")
        observed = (nat.mapped(own, OBSERVER),) if nat is not None and is_steady else ()
        return Address(self.peer, tuple(map(text, (*observed, own))), relays=self._relays)

    async def dial(self, address: Address, timeout_s: float) -> MemoryLink:
        if self._closed is not None:
            raise again(self._closed)
        if address.peer == self.peer:
            raise Unreachable("this is the node's own address")
        number = next(self._numbers)
        attempt = self._attempts[number] = Attempt(address.peer)
        try:
            link, down = await self._try(number, attempt, address, timeout_s)
        finally:
            del self._attempts[number]
        if self._closed is not None:
            raise again(self._closed)
        if link is None:
            raise Unreachable(f"no link to {address.peer.short}", failures(address, attempt, down, timeout_s))
        self._adopt(link)
        link.pipe.send(0, 2**30, partial(self._confirm, link))
        return link

    async def accept(self) -> MemoryLink:
        return await self._incoming.get()

    async def close(self) -> None:
        self._end(LinkClosed("this carrier is closed"))
        for link in list(self.links):
            await link.close("the carrier was closed")

    def crash(self) -> None:
        """The host is gone: everything here ends, nobody is told."""
        self._end(LinkClosed("this host crashed"))
        for link in list(self.links):
            link.fail("this host crashed")

    def confirmed(self, link: MemoryLink) -> None:
        """The dialer has chosen this link: it is one."""
        if self._closed is None and link not in self.links:
            self._adopt(link)
            self._incoming.put(link)

    def _end(self, error: LinkClosed) -> None:
        if self._closed is not None:
            return
        self._closed = error
        self._incoming.close(error)
        self.host.ports.pop(self._port, None)
        self.host.residents.remove(self)
        for url in self._relays:
            self.network.relays[url].members.pop(self.peer, None)
        for attempt in self._attempts.values():
            attempt.heard.set()

    def _adopt(self, link: MemoryLink) -> None:
        self.links[link] = None
        link.on_end = partial(self._ended, link)

    def _ended(self, link: MemoryLink) -> None:
        self.links.pop(link, None)

    @staticmethod
    def _confirm(link: MemoryLink) -> None:
        link.other.on_confirm()

    async def _try(
        self, number: int, attempt: Attempt, address: Address, timeout_s: float
    ) -> tuple[MemoryLink | None, tuple[str, ...]]:
        """The link, or None and the relays that did not reach the peer."""
        attempt.targets = [endpoint(hint) for hint in address.udp]
        hello = Hello(number, self.peer, self.host, tuple(endpoint(hint) for hint in self.address().udp))
        down = tuple(url for url in address.relays if not self.network.relayed(self.host, url, address.peer, hello))
        clock = self.network.clock
        deadline = clock.monotonic() + timeout_s
        patience = deadline
        while self._closed is None and attempt.best is None and clock.monotonic() < min(deadline, patience):
            for target in attempt.targets:
                self.network.send(self.host, self._port, target, hello)
            if attempt.relayed is not None and patience == deadline:
                patience = clock.monotonic() + PUNCH_S
            await self._hear(attempt, min(PROBE_S, deadline - clock.monotonic()))
        return attempt.best or attempt.relayed, down

    async def _hear(self, attempt: Attempt, timeout_s: float) -> None:
        """Wait for any answer, or that long."""
        if attempt.best is None:
            attempt.heard.clear()
            self.network.agenda.after(max(timeout_s, 1e-6), attempt.heard.set)
            await attempt.heard.wait()

    def _datagram(self, message: Any, source: Endpoint) -> None:
        match message:
            case Hello():
                welcome = self._welcome(message, self._path(source), text(source), Route((message.host, self.host)))
                self.network.send(self.host, self._port, source, welcome)
            case Welcome() if attempt := self._attempts.get(message.attempt):
                attempt.hear(message, text(source))
            case Punch() if (attempt := self._attempts.get(message.attempt)) and source not in attempt.targets:
                attempt.targets.append(source)
                attempt.heard.set()

    def _from_relay(self, message: Any, url: str) -> None:
        match message:
            case Hello():
                route = Route((message.host, self.network.relays[url].host, self.host))
                self.network.relayed(self.host, url, message.dialer, self._welcome(message, "relayed", url, route))
                for tries in range(int(PUNCH_S / PROBE_S)):
                    self.network.agenda.after(tries * PROBE_S, partial(self._punch, message))
            case Welcome() if attempt := self._attempts.get(message.attempt):
                attempt.hear(message, url)

    def _punch(self, hello: Hello) -> None:
        if self._closed is None:
            for target in hello.endpoints:
                self.network.send(self.host, self._port, target, Punch(hello.attempt))

    def _path(self, source: Endpoint) -> Path:
        """Whether a dialer at `source` came in by itself, or because this side had opened its NAT."""
        nat = self.host.nat
        is_open = nat is None or nat.kind == "full_cone" or source[0].startswith("10.")
        return "direct" if is_open else "punched"

    def _welcome(self, hello: Hello, path: Path, remote: str, route: Route) -> Welcome:
        """The answer to a hello, the same for each repetition of it over one path."""
        key = (hello.dialer, hello.attempt, remote)
        self._forget_old()
        if key not in self._half_open:
            now = self.network.clock.monotonic()
            own = remote if path == "relayed" else text((self.host.ip, self._port))
            dialer = End(self.peer, LinkInfo(self.name, path, own, now, True), route)
            acceptor = End(hello.dialer, LinkInfo(self.name, path, remote, now, False), route.reversed())
            link, here = connect(self.network, dialer, acceptor)
            here.on_confirm = partial(self.confirmed, here)
            self._half_open[key] = Welcome(hello.attempt, self.peer, link)
        return self._half_open[key]

    def _forget_old(self) -> None:
        """Hellos that were answered long ago: whoever has not confirmed never will."""
        limit = self.network.clock.monotonic() - HALF_OPEN_S
        for key, welcome in list(self._half_open.items()):
            here = welcome.link.other
            if here.end.info.since > limit:
                return
            del self._half_open[key]
            if here not in self.links:
                welcome.link.fail("not chosen")
                here.fail("not chosen")
