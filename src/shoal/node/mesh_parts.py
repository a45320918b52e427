"""The parts of a node's mesh, put together once: carriers, links, calls, membership, directory, NAT."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

import ifaddr

from shoal import __version__
from shoal.core.clock import Clock
from shoal.core.errors import BadConfig, LocalError, ShoalError, Unreachable, Unsupported
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.carrier import Carrier, Link, LinkInfo
from shoal.mesh.dht import Dht
from shoal.mesh.dht import Ground as DhtGround
from shoal.mesh.gossip import Gossip, Member
from shoal.mesh.gossip import Ground as GossipGround
from shoal.mesh.lan import Lan, Ports, Surroundings
from shoal.mesh.nat import Introducer, NatService, answer_observe, meet
from shoal.mesh.nat.introduce import DialTogether
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.rpc import NODE, Introduction, Rpc
from shoal.mesh.rpc.rpc import Connect
from shoal.mesh.switchboard import Switchboard
from shoal.mesh.tcp import TcpCarrier, TcpOptions, listen_tcp

_log = logging.getLogger(__name__)

MEETINGS = 3
"""Common peers asked to introduce two that cannot reach each other."""


@dataclass(frozen=True, slots=True)
class Place:
    """How this node listens. `secret` of its private swarm; None: the public mesh.

    relay_token   what the relays ask for.
    needs_relays  refuse to go on without the library that relays need.
    """

    key: PrivateKey = field(repr=False)
    host: str
    port: int
    relays: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)
    needs_relays: bool = False
    relay_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Parts:
    """`quic` and what needs it are None where the library has no wheel."""

    place: Place
    clock: Clock
    quic: QuicCarrier | None
    tcp: TcpCarrier
    switchboard: Switchboard
    rpc: Rpc
    gossip: Gossip
    dht: Dht
    lan: Lan
    nat: NatService | None

    @property
    def me(self) -> PeerId:
        return self.switchboard.me

    @property
    def port(self) -> int:
        return _port(self.tcp.address().tcp)


@asynccontextmanager
async def mesh_parts(place: Place, clock: Clock) -> AsyncIterator[Parts]:
    """Listening, no more: register methods, then `switchboard.start()`. BadConfig if it cannot listen there."""
    async with AsyncExitStack() as stack:
        tcp = await _tcp(place, clock)
        stack.push_async_callback(tcp.close)
        quic = await _quic(place, _port(tcp.address().tcp), clock)
        carriers: tuple[Carrier, ...] = (tcp,)
        if quic is not None:
            stack.push_async_callback(quic.close)
            carriers = (quic, tcp)
        switchboard = Switchboard(PeerId(place.key.public), carriers, clock)
        introduction = Introduction(switchboard.me, f"shoal/{__version__}", secret=place.secret)
        rpc = Rpc(introduction, _connecting(switchboard, quic, lambda: rpc), clock, NODE)
        switchboard.on_link, switchboard.is_busy = rpc.accepted, rpc.is_busy
        stack.push_async_callback(switchboard.close)
        stack.push_async_callback(rpc.close)
        answer_observe(rpc)
        nat = None
        if quic is not None:
            nat = NatService(quic, rpc, clock)
            introducer = Introducer(
                rpc, lambda peer: _quic_link(switchboard, peer), _adopting(switchboard, quic), nat.journal, clock
            )
            introducer.answer(rpc)
            stack.push_async_callback(introducer.close)
        ground = GossipGround(
            rpc, rpc, clock, place.key, switchboard.address, _learning(switchboard, "gossip"), _releasing(switchboard)
        )
        gossip = Gossip(ground)
        switchboard.on_lost = gossip.doubt
        yield Parts(
            place,
            clock,
            quic,
            tcp,
            switchboard,
            rpc,
            gossip,
            Dht(DhtGround(rpc, rpc, clock, place.key, switchboard.address, _learning(switchboard, "dht"))),
            Lan(Surroundings(place.key, clock, lambda: _ports(quic, tcp), _found(switchboard), place.secret or b"")),
            nat,
        )


def _connecting(switchboard: Switchboard, quic: QuicCarrier | None, rpc: Callable[[], Rpc]) -> Connect:
    """The switchboard's `link`, and where that fails a meeting arranged by a peer both are connected to."""

    async def connect(peer: PeerId) -> Link:
        try:
            return await switchboard.link(peer)
        except Unreachable as error:
            if quic is None:
                raise
            return await _meet(switchboard, quic, rpc(), peer, error)

    return connect


async def _meet(switchboard: Switchboard, quic: QuicCarrier, rpc: Rpc, peer: PeerId, failed: Unreachable) -> Link:
    steps = list(failed.steps)
    for common in _meeting_places(switchboard, peer):
        try:
            return await meet(rpc, common, peer, _adopting(switchboard, quic))
        except ShoalError as error:
            steps.append(f"meet by way of {common.short}: {error}")
    raise Unreachable(str(failed).partition("; ")[0], tuple(steps)) from failed


def _meeting_places(switchboard: Switchboard, peer: PeerId) -> list[PeerId]:
    links = [report for report in switchboard.snapshot() if report.link is not None and report.peer != peer]
    direct = [report.peer for report in links if report.link and report.link.carrier == "quic"]
    return direct[:MEETINGS]


def _adopting(switchboard: Switchboard, quic: QuicCarrier) -> DialTogether:
    async def dial(address: Address, timeout_s: float) -> Link:
        link = await quic.dial_together(address, timeout_s)
        switchboard.adopt(link)
        return link

    return dial


def _quic_link(switchboard: Switchboard, peer: PeerId) -> LinkInfo | None:
    reports = (report for report in switchboard.snapshot() if report.peer == peer)
    return next((report.link for report in reports if report.link and report.link.carrier == "quic"), None)


def _learning(switchboard: Switchboard, source: str) -> Callable[[Address], None]:
    return lambda address: switchboard.learn(address, source)


def _releasing(switchboard: Switchboard) -> Callable[[Member], None]:
    """Whoever has said goodbye is not dialled again until it is found anew."""

    def changed(member: Member) -> None:
        if member.status == "left":
            switchboard.release(member.peer)

    return changed


def _found(switchboard: Switchboard) -> Callable[[Address], None]:
    def found(address: Address) -> None:
        switchboard.learn(address, "lan")
        switchboard.keep(address.peer)

    return found


async def _tcp(place: Place, clock: Clock) -> TcpCarrier:
    listen = _endpoints(place.host, place.port)
    _require_own(place.host)
    try:
        return await listen_tcp(place.key, TcpOptions(listen, clock=clock))
    except LocalError as error:
        raise BadConfig("mesh_port", str(error)) from error


async def _quic(place: Place, port: int, clock: Clock) -> QuicCarrier | None:
    bind = _endpoints(place.host, port)[0]
    try:
        carrier = await QuicCarrier.start(QuicConfig(place.key, bind, place.relays, place.relay_token, clock=clock))
        if place.relays and not await carrier.wait_online(0.05):
            names = ", ".join(place.relays)
            _log.warning("no relay answers (%s): %s", names, "peers behind strict NATs cannot connect until one does")
        return carrier
    except Unsupported as error:
        if place.needs_relays:
            raise
        _log.warning("no hole punching and no relays here: %s", error)
        return None


def _endpoints(host: str, port: int) -> tuple[str, ...]:
    """For both families where `host` means all addresses."""
    if host == "0.0.0.0":  # noqa: S104  compared, not bound
        return (f"{host}:{port}", f"[::]:{port}")
    try:
        address = ip_address(host)
    except ValueError:
        raise BadConfig("mesh_host", f"expected an IP address, found {host!r}") from None
    return (f"[{host}]:{port}" if isinstance(address, IPv6Address) else f"{host}:{port}",)


def _require_own(host: str) -> None:
    """BadConfig for an address that no interface of this machine has."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        own = ", ".join(sorted({str(ip.ip) for card in ifaddr.get_adapters() for ip in card.ips if ip.is_IPv4}))
        told = f"this machine cannot listen at {host} ({error.strerror}); it has {own}; 0.0.0.0 is all of them"
        raise BadConfig("mesh_host", told) from error


def _ports(quic: QuicCarrier | None, tcp: TcpCarrier) -> Ports:
    return Ports(_port(quic.bound()) if quic is not None else 0, _port(tcp.address().tcp))


def _port(endpoints: tuple[str, ...]) -> int:
    return int(endpoints[0].rpartition(":")[2]) if endpoints else 0
