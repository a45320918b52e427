"""The QUIC endpoint of this node: it dials, accepts, and knows where it may be reached.

What this does not protect against: see the package's docstring.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from shoal.core.clock import Clock, SystemClock
from shoal.core.errors import BadConfig, LinkClosed, Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import MAX_HINTS, Address
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import binding, failures
from shoal.mesh.quic.dial import Attempt, Plan, explain, is_relay_url, plan
from shoal.mesh.quic.failover import RelayWatch, relay_record
from shoal.mesh.quic.inbox import Inbox
from shoal.mesh.quic.link import Origin, QuicLink
from shoal.mesh.tcp.endpoint import Endpoint

ALPN = b"shoal/1"
BACKLOG = 128
"""Links that were dialled to us and not yet accepted."""

MAX_HANDSHAKES = 64
"""Handshakes in progress; beyond it newcomers are refused, beyond a quarter they must prove their address first."""

HANDSHAKE_S = 10.0
MAX_PER_SITE = 16
"""Of these, from one IPv4 address or IPv6 /64 that has proven to be where it says; twice as many through one relay."""
PARTING_S = 0.3
"""For the library to tell peers that their connections end; a dial to one that is gone would hold it for 3 s."""


@dataclass(frozen=True, slots=True)
class QuicConfig:
    """How the endpoint listens.

    key           the node's identity.
    bind          IPv4 or IPv6 "ip:port"; the other family listens at a port of its own. None: all, any port.
    relays        URLs of relays, any order; the nearest that answers becomes the home. Empty: no relays, also to dial.
    relay_token   sent to every relay as a bearer token; None: no token.
    max_links     open links; further ones are refused.
    online_s      how long `start` waits for a home relay; without one it goes on, and address() names them all.
    """

    key: PrivateKey
    bind: str | None = None
    relays: tuple[str, ...] = ()
    relay_token: str | None = field(default=None, repr=False)
    max_links: int = 1024
    online_s: float = 3.0
    clock: Clock = field(default_factory=SystemClock, repr=False)


class QuicCarrier:
    """See `carrier.Carrier`. Made by `start`."""

    def __init__(self, config: QuicConfig, endpoint: Any, iroh: Any) -> None:
        self._config = config
        self._endpoint = endpoint
        self._iroh = iroh
        self._peer = PeerId(config.key.public)
        self._links: set[QuicLink] = set()
        self._inbox: Inbox[QuicLink] = Inbox(BACKLOG)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._knocking: Counter[str] = Counter()
        self._expected: dict[PeerId, float] = {}
        self._external: tuple[str, ...] = ()
        self._withdrawn: set[str] = set()
        self._is_closed = False
        self._listening = asyncio.create_task(self._listen())
        watch = RelayWatch(endpoint, iroh, config, self._relay_lost)
        self._watching = asyncio.create_task(watch.run()) if config.relays else None

    @classmethod
    async def start(cls, config: QuicConfig) -> Self:
        """Bind and listen. Unsupported without the library, BadConfig for an address that cannot be bound."""
        iroh = binding.load()
        try:
            endpoint = await iroh.Endpoint.bind(_options(iroh, config))
        except iroh.IrohError as error:
            raise BadConfig(
                "bind", f"the quic carrier cannot listen at {config.bind}: {failures.plain(error)}"
            ) from error
        carrier = cls(config, endpoint, iroh)
        if config.relays:
            await carrier.wait_online(config.online_s)
        return carrier

    @property
    def name(self) -> str:
        return "quic"

    @property
    def home_relay(self) -> str | None:
        """The relay this node has chosen to listen at; None before it has. `wait_online` says whether it answers."""
        return None if self._is_closed else self._endpoint.addr().relay_url()

    async def wait_online(self, timeout_s: float) -> bool:
        """Wait for a home relay; False where there was none in time."""
        try:
            await asyncio.wait_for(self._endpoint.online(), timeout_s)
        except TimeoutError:
            return False
        return True

    def bound(self) -> tuple[str, ...]:
        """The local sockets, "0.0.0.0:port" and "[::]:port": what a port mapping is asked for."""
        return tuple(self._endpoint.bound_sockets())

    # ---- where it may be reached

    def address(self) -> Address:
        udp = () if self._is_closed else tuple(self._endpoint.addr().direct_addresses())
        home = self.home_relay
        relays = ((home,) if home else ()) + self._config.relays
        hints = (hint for hint in dict.fromkeys(self._external + udp) if hint not in self._withdrawn)
        return Address(self._peer, tuple(hints)[:MAX_HINTS], (), tuple(dict.fromkeys(map(_canonical, relays))))

    async def set_external(self, endpoints: tuple[str, ...]) -> None:
        """Addresses of ours that observers or a port mapping told: dialers and hole punching use exactly these."""
        self._withdrawn |= set(self._external)  # the library takes a moment to forget
        self._withdrawn -= set(endpoints)
        for gone in set(self._external) - set(endpoints):
            await self._endpoint.remove_external_addr(gone)
        for new in endpoints:
            if new not in self._external:
                await self._endpoint.add_external_addr(new)
        self._external = endpoints

    # ---- dialing

    async def dial(self, address: Address, timeout_s: float) -> QuicLink:
        return await self._dial(address, timeout_s, is_together=False)

    async def dial_together(self, address: Address, timeout_s: float) -> QuicLink:
        """As `dial`, while the other side was told to dial us too: an IP path is punched, not direct."""
        return await self._dial(address, timeout_s, is_together=True)

    def expect(self, peer: PeerId, within_s: float) -> None:
        """A link `peer` dials within that time was arranged by a common peer: its IP path is punched."""
        now = self._config.clock.monotonic()
        self._expected = {known: until for known, until in self._expected.items() if until > now}
        self._expected[peer] = now + within_s

    async def _dial(self, address: Address, timeout_s: float, is_together: bool) -> QuicLink:
        if self._is_closed:
            raise LinkClosed("the quic carrier is closed")
        if address.peer == self._peer:
            raise Unreachable("a node does not dial itself", ("the address names this node's own peer id",))
        tried = plan(address, bool(self._config.relays))
        if not tried.attempts:
            raise Unreachable(f"peer {address.peer.short} has no address for the quic carrier", tried.refused)
        connection, causes = await self._race(address.peer, tried, timeout_s)
        if connection is None:
            is_online = not self._config.relays or await self.wait_online(0.05)
            steps = explain(tried, is_online, timeout_s, causes)
            raise Unreachable(f"peer {address.peer.short} cannot be reached over quic", steps)
        return self._adopt(connection, Origin(True, is_together, self._config.clock))

    async def _race(self, peer: PeerId, tried: Plan, timeout_s: float) -> tuple[Any, tuple[str, ...]]:
        """The first connection of any attempt, or None and what each said; attempts that lost are given up."""
        tasks = [asyncio.create_task(self._attempt(peer, item)) for item in tried.attempts]
        causes: list[str] = []
        try:
            async with asyncio.timeout(timeout_s):
                for next_done in asyncio.as_completed(tasks):
                    try:
                        return await next_done, ()
                    except self._iroh.IrohError as error:
                        causes.append(failures.plain(error))
        except TimeoutError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return None, tuple(causes)

    async def _attempt(self, peer: PeerId, item: Attempt) -> Any:
        if item.after_s:
            await asyncio.sleep(item.after_s)
        target = self._iroh.EndpointAddr(self._iroh.EndpointId.from_bytes(peer.key), item.relay, list(item.udp))
        return await self._endpoint.connect(target, ALPN)

    # ---- listening

    async def accept(self) -> QuicLink:
        return await self._inbox.take()

    async def _listen(self) -> None:
        while (incoming := await self._endpoint.accept_next()) is not None:
            if len(self._handshakes) >= MAX_HANDSHAKES or len(self._links) >= self._config.max_links:
                await incoming.refuse()
                continue
            task = asyncio.create_task(self._welcome(incoming))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _welcome(self, incoming: Any) -> None:
        site = ""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                is_proven = await incoming.remote_addr_validated()
                if len(self._handshakes) > MAX_HANDSHAKES // 4 and not is_proven:
                    await incoming.retry()
                    return
                site, most = _site(await incoming.remote_addr()) if is_proven else ("", 0)
                self._knocking[site] += 1
                if site and self._knocking[site] > most:
                    await incoming.refuse()
                    return
                connection = await (await incoming.accept()).connect()
        except (self._iroh.IrohError, TimeoutError):
            return  # a stranger's handshake that came to nothing is the stranger's affair
        finally:
            self._leave(site)
        peer = PeerId(connection.remote_id().to_bytes())
        is_together = self._expected.pop(peer, 0.0) > self._config.clock.monotonic()
        link = self._adopt(connection, Origin(False, is_together, self._config.clock))
        if not self._inbox.put(link):
            await link.close("too many links wait to be accepted")

    def _leave(self, site: str) -> None:
        self._knocking[site] -= 1
        if self._knocking[site] <= 0:
            del self._knocking[site]

    def _adopt(self, connection: Any, origin: Origin) -> QuicLink:
        link = QuicLink(connection, origin)
        self._links.add(link)
        link.when_ended(lambda: self._links.discard(link))
        return link

    async def _relay_lost(self, url: str) -> None:
        """End the links that went through a relay that no longer answers."""
        stale = [link for link in self._links if link.info().path == "relayed" and link.info().remote == url]
        await asyncio.gather(*(link.close(f"relay {url} fell silent") for link in stale))

    # ---- the end

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._inbox.end(LinkClosed("the quic carrier is closed"))
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.gather(*(link.close("the node is stopping") for link in list(self._links)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._endpoint.close(), PARTING_S)
        self._listening.cancel()
        await asyncio.gather(self._listening, *self._handshakes, return_exceptions=True)


def _options(iroh: Any, config: QuicConfig) -> Any:
    mode = iroh.RelayMode.disabled()
    if config.relays:
        relays = iroh.RelayMap.empty()
        for url in config.relays:
            if not is_relay_url(url):
                raise BadConfig("relays", f"expected http:// or https:// and a host, found {url!r}")
            relays.insert(relay_record(iroh, url, config.relay_token))
        mode = iroh.RelayMode.custom(relays)
    return iroh.EndpointOptions(
        preset=iroh.preset_minimal(), bind_addr=config.bind, secret_key=config.key.seed, alpns=[ALPN], relay_mode=mode
    )


def _site(where: Any) -> tuple[str, int]:
    """Who is counted as one, and how many handshakes it may have in progress."""
    if where.is_RELAY():
        return where.url, 2 * MAX_PER_SITE
    return Endpoint.parse(where.addr).site, MAX_PER_SITE


def _canonical(url: str) -> str:
    """The library adds a slash to a URL without a path; one relay must have one name."""
    return url if url.endswith("/") else url + "/"
