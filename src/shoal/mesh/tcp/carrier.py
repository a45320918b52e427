"""Listening and dialing over TCP with the node's key."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import ifaddr

from shoal.core.clock import Clock, SystemClock
from shoal.core.errors import LinkClosed, LocalError, ShoalError, Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import MAX_HINTS, Address
from shoal.mesh.carrier import LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.tcp.certificate import client_context, server_context
from shoal.mesh.tcp.dialing import Dialer, race
from shoal.mesh.tcp.door import Door, DoorLimits
from shoal.mesh.tcp.endpoint import Endpoint, of_socket
from shoal.mesh.tcp.hello import (
    CLIENT_HELLO_BYTES,
    HIGHEST,
    LOWEST,
    NONCE_BYTES,
    ServerHello,
    parse_client_hello,
    verdict,
)
from shoal.mesh.tcp.link import Loan, TcpLink
from shoal.mesh.tcp.wire import Wire
from shoal.mesh.waiting import Inbox, again

BUFFER_BYTES = 256 * 1024
BACKLOG = 256
MAX_UNREAD = 512 * 2**20
"""Bytes that have come and wait to be read, over all links; beyond it the link with the most is ended."""
WAITING_LINKS = 256
"""Incoming links nobody has accepted yet; more are declined."""


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """listen    endpoints to listen at; port 0 takes a free one. One that this machine does not have is left out.
    announced  endpoints under which others reach this node, in front of those it knows (a forwarded port).
    max_unread  bytes that may wait to be read, over all links.
    """

    listen: tuple[str, ...] = ("0.0.0.0:0", "[::]:0")
    announced: tuple[str, ...] = ()
    max_unread: int = MAX_UNREAD
    door: DoorLimits = field(default_factory=DoorLimits)
    clock: Clock = field(default_factory=SystemClock)


async def listen_tcp(key: PrivateKey, options: TcpOptions | None = None) -> TcpCarrier:
    """A carrier that listens. LocalError where none of the endpoints can be listened at."""
    options = options or TcpOptions()
    listeners, errors = [], []
    for text in options.listen:
        try:
            listeners.append(_listener(Endpoint.parse(text)))
        except OSError as error:
            errors.append(f"{text}: {error.strerror or error}")
    if not listeners and options.listen:
        raise LocalError(f"cannot listen for TCP at any of {', '.join(errors)}; choose another port")
    return TcpCarrier(key, options, listeners)


class TcpCarrier:
    """Made by `listen_tcp`."""

    def __init__(self, key: PrivateKey, options: TcpOptions, listeners: list[socket.socket]) -> None:
        self._peer = PeerId(key.public)
        self._options = options
        self._listeners = listeners
        self._server = server_context(key)
        self._dialer = Dialer(key, client_context())
        self._door = Door(options.door)
        self._links: dict[TcpLink, str] = {}
        self._unread: Counter[TcpLink] = Counter()
        self._unread_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._partings: set[asyncio.Task[None]] = set()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._incoming: Inbox[TcpLink] = Inbox()
        self._closed: LinkClosed | None = None
        self._announced = options.announced
        for listener in listeners:
            self._spawn(self._listen(listener))

    @property
    def name(self) -> str:
        return "tcp"

    def announce(self, endpoints: tuple[str, ...]) -> None:
        """Where others reach this node beside its own interfaces: a mapped port, an observed address."""
        self._announced = tuple(str(Endpoint.parse(text)) for text in endpoints)

    def address(self) -> Address:
        if self._closed is not None:
            return Address(self._peer)
        own = [
            str(endpoint) for listener in self._listeners for endpoint in _reachable(of_socket(listener.getsockname()))
        ]
        return Address(self._peer, tcp=tuple(dict.fromkeys((*self._announced, *own)))[:MAX_HINTS])

    async def dial(self, address: Address, timeout_s: float) -> TcpLink:
        self._check_open()
        if address.peer == self._peer:
            raise Unreachable("this is the node's own address")
        if not address.tcp:
            raise Unreachable(
                f"the address of {address.peer.short} has no TCP endpoint; it can be reached otherwise, if at all"
            )
        endpoint, wire = await race(
            address.tcp, lambda where: self._dialer.connect(where, address.peer), timeout_s, self._options.clock
        )
        try:
            self._check_open()
        except LinkClosed:
            wire.close()
            raise
        return self._link(wire, address.peer, endpoint, True)

    async def accept(self) -> TcpLink:
        return await self._incoming.get()

    async def close(self) -> None:
        if self._closed is None:
            self._closed = LinkClosed("this carrier is closed")
            self._incoming.close(self._closed)
            for task in self._tasks:
                task.cancel()
            for link in list(self._links):
                await link.close("the carrier was closed")
        await asyncio.gather(*self._tasks, *self._partings, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise again(self._closed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                raw, name = await loop.sock_accept(listener)
            except OSError:
                await self._options.clock.sleep(0.1)  # out of file descriptors, or the dialer is gone already
                continue
            endpoint = of_socket(name)
            if self._door.knock(endpoint.site):
                self._spawn(self._greet(raw, endpoint))
            else:
                raw.close()

    async def _greet(self, raw: socket.socket, endpoint: Endpoint) -> None:
        """A handshake as the server, within its time; whoever fails it learns nothing."""
        wire: Wire | None = None
        try:
            async with asyncio.timeout(self._options.door.handshake_s):
                wire = Wire(raw, self._server, is_server=True)
                peer = await self._proven(wire)
                reason = self._refusal(endpoint.site, peer)
                await wire.write_all(verdict(reason))
            if not reason:
                link = self._link(wire, peer, endpoint, False)
                self._incoming.put(link)
                wire = None
        except (OSError, ssl.SSLError, ShoalError, TimeoutError):
            pass
        finally:
            self._door.turn_away(endpoint.site)
            if wire is not None:
                wire.close()
            elif raw.fileno() >= 0:
                raw.close()

    async def _proven(self, wire: Wire) -> PeerId:
        await wire.handshake()
        hello = ServerHello(LOWEST, HIGHEST, os.urandom(NONCE_BYTES))
        await wire.write_all(hello.encode())
        return parse_client_hello(await wire.read_exactly(CLIENT_HELLO_BYTES), self._peer, hello.nonce)

    def _refusal(self, site: str, peer: PeerId) -> str:
        if peer == self._peer:
            return "that is this node's own key; two nodes never run on one copy"
        if len(self._incoming) >= WAITING_LINKS:
            return "this node is busy; try later"
        return self._door.refusal(site)

    def _link(self, wire: Wire, peer: PeerId, endpoint: Endpoint, is_dialer: bool) -> TcpLink:
        info = LinkInfo(self.name, "direct", str(endpoint), self._options.clock.monotonic(), is_dialer)
        link = TcpLink(
            wire, peer, info, Loan(self._buffer, self._options.clock, self._ended, self._parting, self._hold)
        )
        self._links[link] = "" if is_dialer else endpoint.site
        if not is_dialer:
            self._door.enter(endpoint.site)
        return link

    def _hold(self, link: TcpLink, size: int) -> None:
        if link not in self._links:
            return
        self._unread[link] += size
        self._unread_bytes += size
        if self._unread[link] <= 0:
            del self._unread[link]
        if self._unread_bytes > self._options.max_unread:
            fullest = max(self._unread, key=lambda other: self._unread[other])
            self._spawn(fullest.close("more waits to be read here than there is room for, most of it from this link"))

    def _ended(self, link: TcpLink) -> None:
        self._unread_bytes -= self._unread.pop(link, 0)
        if site := self._links.pop(link, ""):
            self._door.leave(site)

    def _parting(self, task: asyncio.Task[None]) -> None:
        self._partings.add(task)
        task.add_done_callback(self._partings.discard)


def _listener(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        raw.setblocking(False)
        raw.bind((str(endpoint.ip), endpoint.port))
        raw.listen(BACKLOG)
    except BaseException:
        raw.close()
        raise
    return raw


def _reachable(listening: Endpoint) -> list[Endpoint]:
    """Where a listener may be reached: itself, or every interface's address where it listens at all of them."""
    if not listening.ip.is_unspecified:
        return [listening]
    texts = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for card in ifaddr.get_adapters() for ip in card.ips]
    found = [of_socket((text, listening.port)) for text in texts]
    usable = [item for item in found if item.ip.version == listening.ip.version and not item.ip.is_link_local]
    return sorted(usable, key=lambda item: item.ip.is_loopback)
