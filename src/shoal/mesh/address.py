"""Where a peer may be reached: hints that anybody may give, because the connection proves who answers."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.mesh.peer_id import PeerId

MAX_HINTS = 16
"""Endpoints of one kind that are kept; a home machine has about six (v4, v6, LAN, public, two relays)."""


@dataclass(frozen=True, slots=True)
class Address:
    """`udp` and `tcp` are "ip:port" or "[ipv6]:port", most likely first; `relays` are URLs of relays it listens at.

    udp  endpoints for QUIC (iroh), observed ones included.
    tcp  endpoints for TLS over TCP.
    """

    peer: PeerId
    udp: tuple[str, ...] = ()
    tcp: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.udp or self.tcp or self.relays)

    def merged(self, newer: Address) -> Address:
        """Both, the newer hints first, each kind cut at MAX_HINTS. ValueError for two peers."""
        if newer.peer != self.peer:
            raise ValueError(f"addresses of two peers: {self.peer.short} and {newer.peer.short}")
        return Address(
            self.peer, _union(newer.udp, self.udp), _union(newer.tcp, self.tcp), _union(newer.relays, self.relays)
        )


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(first + second))[:MAX_HINTS]
