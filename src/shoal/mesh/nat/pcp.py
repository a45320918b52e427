"""PCP (RFC 6887): the successor of NAT-PMP, on the same port of the router. Encoding and parsing are pure.

A mapping belongs to whoever knows its nonce: the same one renews it and takes it back.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from shoal.core.errors import PeerFault, Unreachable
from shoal.mesh.nat import natpmp
from shoal.mesh.nat.natpmp import Mapping

VERSION = 2
MAP = 1
ANSWER = 128
UDP = 17
NONCE_BYTES = 12
REPLY_BYTES = 60
TRIES = 3
"""1.75 s in all: a router that speaks only NAT-PMP says so at once, and one that speaks neither is soon left."""

RESULTS = {
    1: "it does not know this version",
    2: "it is not allowed (turned off in the router)",
    3: "it found the request malformed",
    4: "it does not know this operation",
    7: "its network is down",
    8: "it has no ports left",
    9: "it does not map this protocol",
    10: "this machine has mapped as many ports as it may",
    12: "another NAT lies between this machine and it",
}


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a MAP answer says."""

    nonce: bytes
    internal_port: int
    external: str
    lifetime_s: int


def map_request(client: str, nonce: bytes, internal_port: int, wanted_port: int, lifetime_s: int) -> bytes:
    """Sections 7.1 and 11.1. `client`: the IPv4 address it is sent from. A lifetime of 0 takes the mapping back."""
    head = struct.pack(">BBHI16s", VERSION, MAP, 0, lifetime_s, _mapped(client))
    return head + struct.pack(">12sB3xHH16s", nonce, UDP, internal_port, wanted_port, _mapped("0.0.0.0"))  # noqa: S104


def parse_map(data: bytes) -> Mapped:
    """Sections 7.2 and 11.1. PeerFault for anything else, the router's refusals included."""
    if len(data) >= 4 and data[0] == VERSION and data[1] == ANSWER | MAP and data[3]:
        raise PeerFault(f"pcp: the router refused: {RESULTS.get(data[3], f'result {data[3]}')}")
    if len(data) >= 4 and data[0] != VERSION:
        raise PeerFault("pcp: the router does not speak it")
    if len(data) != REPLY_BYTES or data[1] != ANSWER | MAP:
        raise PeerFault(f"pcp: expected an answer of {REPLY_BYTES} bytes to a request for a port")
    lifetime = int.from_bytes(data[4:8], "big")
    nonce, protocol, internal, external, address = struct.unpack(">12sB3xHH16s", data[24:])
    if protocol != UDP:
        raise PeerFault(f"pcp: asked for UDP, the router answered about protocol {protocol}")
    ip = ipaddress.IPv6Address(address)
    return Mapped(nonce, internal, f"{ip.ipv4_mapped}:{external}" if ip.ipv4_mapped else f"[{ip}]:{external}", lifetime)


async def map_port(
    gateway: str, internal_port: int, nonce: bytes, lifetime_s: int = 3600, port: int = natpmp.PORT
) -> Mapping:
    """A mapping of a UDP port. Unreachable where nobody answers, PeerFault where the router refuses."""
    found = await _exchange(gateway, port, nonce, internal_port, lifetime_s)
    return Mapping(found.external, internal_port, found.lifetime_s)


async def unmap_port(gateway: str, internal_port: int, nonce: bytes, port: int = natpmp.PORT) -> None:
    """Take the mapping back, as a node does when it stops."""
    await _exchange(gateway, port, nonce, internal_port, 0)


async def _exchange(gateway: str, port: int, nonce: bytes, internal_port: int, lifetime_s: int) -> Mapped:
    def request(own: str) -> bytes:
        return map_request(own, nonce, internal_port, internal_port if lifetime_s else 0, lifetime_s)

    try:
        found = parse_map(await natpmp.ask(gateway, port, request, TRIES))
    except Unreachable as error:
        raise Unreachable(str(error).replace("nat-pmp", "pcp")) from error
    if (found.nonce, found.internal_port) != (nonce, internal_port):
        raise PeerFault(f"pcp: asked for port {internal_port}, the router answered about {found.internal_port}")
    return found


def _mapped(address: str) -> bytes:
    """An IPv4 address as PCP writes it."""
    return ipaddress.IPv6Address(f"::ffff:{address}").packed
