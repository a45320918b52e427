"""Judges a `Network`: how well peers can reach this machine, and what to change where they cannot. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shoal.mesh.nat.classify import Nat
from shoal.node.doctor import Check, Status

MAX_SKEW_S = 60.0
"""Tickets and records expire by the clock; a minute does no harm yet."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A bootstrap peer: `path` and `carrier` of the link, or `failure`. skew_s: its clock less ours, None unknown."""

    peer: str
    path: str = ""
    carrier: str = ""
    rtt_s: float | None = None
    skew_s: float | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """Of a relay, the router or an interface: what was asked, how it went, whether well."""

    what: str
    outcome: str
    is_good: bool


@dataclass(frozen=True, slots=True)
class Network:
    """What was found. `nat` None: no carrier for UDP is installed. `has_ipv6`: this machine has a route to it."""

    nat: Nat | None
    has_ipv6: bool
    peers: tuple[Reached, ...] = ()
    relays: tuple[Answered, ...] = ()
    mapping: tuple[Answered, ...] = ()
    multicast: tuple[Answered, ...] = ()


def diagnose_network(network: Network) -> tuple[Check, ...]:
    """Every check; `fail` where this machine can reach nobody."""
    return (
        *_peers(network.peers),
        _udp(network),
        _nat(network.nat),
        Check("IPv6", "ok", "there is a route")
        if network.has_ipv6
        else Check("IPv6", "warn", "no route", "not needed; with it two symmetric NATs need no relay"),
        _mapping(network),
        *_relays(network.relays),
        _multicast(network.multicast),
        _clock(network.peers),
    )


def _peers(peers: tuple[Reached, ...]) -> Iterator[Check]:
    if not peers:
        yield Check("peers", "warn", "nobody to ask", "give --ticket of a mesh, and what depends on others is seen too")
    is_alone = all(peer.failure for peer in peers)
    for peer in peers:
        name = f"peer {peer.peer}"
        if peer.failure:
            advice = "check that it runs, and that its addresses are reached from this network; a relay would help"
            yield Check(name, "fail" if is_alone else "warn", peer.failure, advice)
            continue
        rtt = "" if peer.rtt_s is None else f", {peer.rtt_s * 1e3:.1f} ms"
        status: Status = "warn" if peer.path == "relayed" else "ok"
        advice = "the NAT or the firewall below is why" if status == "warn" else ""
        yield Check(name, status, f"{peer.path} over {peer.carrier}{rtt}", advice)


def _udp(network: Network) -> Check:
    found = [peer for peer in network.peers if not peer.failure]
    if network.nat is None:
        return Check("UDP", "warn", "no carrier for it here", "pip install iroh; without it only TCP connects")
    if any(peer.carrier == "quic" and peer.path != "relayed" for peer in found):
        return Check("UDP", "ok", "gets out, and answers come back")
    if not found:
        return Check("UDP", "warn", "not known: no peer could be asked", "give --ticket of a mesh")
    return Check("UDP", "warn", "does not get out", "allow outgoing UDP in the firewall; TCP and relays are slower")


def _nat(nat: Nat | None) -> Check:
    if nat is None or nat.kind == "unknown":
        return Check("NAT", "warn", "not known: no public peer could be asked", "give --ticket of a mesh")
    status: Status = "ok" if nat.kind in ("none", "cone") else "warn"
    return Check("NAT", status, f"{nat.kind}: {nat.why}", "" if status == "ok" else nat.advice)


def _mapping(network: Network) -> Check:
    good = [item for item in network.mapping if item.is_good]
    if good:
        return Check("port mapping", "ok", f"{good[0].what}: {good[0].outcome}")
    if network.nat is not None and network.nat.kind == "none":
        return Check("port mapping", "ok", "not needed: nothing translates addresses here")
    found = "; ".join(f"{item.what}: {item.outcome}" for item in network.mapping) or "no router was found"
    return Check("port mapping", "warn", found, "switch on PCP, NAT-PMP or UPnP in the router, or forward --mesh-port")


def _relays(relays: tuple[Answered, ...]) -> Iterator[Check]:
    if not relays:
        yield Check("relays", "warn", "none is known", "--relay URL; without one some pairs of NATs cannot connect")
    for relay in relays:
        advice = "" if relay.is_good else "check its address and this network's firewall, or use another"
        yield Check(f"relay {relay.what}", "ok" if relay.is_good else "warn", relay.outcome, advice)


def _multicast(interfaces: tuple[Answered, ...]) -> Check:
    good = [item.what for item in interfaces if item.is_good]
    if good:
        return Check("multicast", "ok", f"works on {', '.join(good)}")
    found = "; ".join(f"{item.what}: {item.outcome}" for item in interfaces) or "no interface"
    return Check("multicast", "warn", found, "peers on this network are not found by themselves; use a ticket")


def _clock(peers: tuple[Reached, ...]) -> Check:
    skews = sorted(peer.skew_s for peer in peers if peer.skew_s is not None)
    if not skews:
        return Check("clock", "warn", "not compared: no peer could be asked", "give --ticket of a mesh")
    skew = skews[len(skews) // 2]
    found = f"{abs(skew):.1f} s {'behind' if skew > 0 else 'before'} the peers"
    if abs(skew) <= MAX_SKEW_S:
        return Check("clock", "ok", found)
    return Check("clock", "warn", found, "set the clock (NTP): tickets and records expire by it")
