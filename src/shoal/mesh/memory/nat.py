"""One NAT's table: which public endpoint an inside one gets, and who may answer there (RFC 4787).

kind             mapping                     who may send in
full_cone        one per inside endpoint     anybody
port_restricted  one per inside endpoint     endpoints that were sent to
symmetric        one per destination         that destination
udp_blocked      none                        nobody
"""

from __future__ import annotations

from typing import Literal

NatKind = Literal["none", "full_cone", "port_restricted", "symmetric", "udp_blocked"]
Endpoint = tuple[str, int]

HOLE_S = 30.0
"""Seconds after the last packet out that an answer may come in; home routers: 30 to 300."""
FIRST_PORT = 20_000


class Nat:
    def __init__(self, kind: NatKind, public_ip: str) -> None:
        self.kind = kind
        self.public_ip = public_ip
        self._ports: dict[tuple[Endpoint, Endpoint | None], int] = {}
        self._insides: dict[int, Endpoint] = {}
        self._holes: dict[tuple[int, Endpoint], float] = {}

    def mapped(self, inside: Endpoint, to: Endpoint) -> Endpoint:
        """The public endpoint of `inside` as seen by `to`."""
        key = (inside, to if self.kind == "symmetric" else None)
        port = self._ports.get(key)
        if port is None:
            port = self._ports[key] = FIRST_PORT + len(self._ports)
            self._insides[port] = inside
        return self.public_ip, port

    def outbound(self, inside: Endpoint, to: Endpoint, now: float) -> Endpoint | None:
        """Who a packet to `to` seems to come from; None where none gets out."""
        if self.kind == "udp_blocked":
            return None
        public = self.mapped(inside, to)
        self._holes[public[1], to] = now
        return public

    def inbound(self, source: Endpoint, port: int, now: float) -> Endpoint | None:
        """Who inside gets a packet from `source` for the public `port`; None where it is dropped."""
        inside = self._insides.get(port)
        if inside is None or self.kind == "udp_blocked":
            return None
        is_open = self.kind == "full_cone" or now - self._holes.get((port, source), -HOLE_S) < HOLE_S
        return inside if is_open else None
