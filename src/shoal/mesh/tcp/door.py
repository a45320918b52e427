"""How many may knock at once: what a stranger can make this node hold before it has proven anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """half_open         handshakes under way; each holds a socket and about 60 kB of TLS.
    half_open_per_site  of these, from one IPv4 address or IPv6 /64.
    links               established incoming links.
    links_per_site      of these, from one site; a household or an office behind one address has many nodes.
    handshake_s         from the connection to the proof, however slowly bytes drip in.
    """

    half_open: int = 128
    half_open_per_site: int = 32
    links: int = 1024
    links_per_site: int = 256
    handshake_s: float = 5.0


class Door:
    """Counts; knows no sockets."""

    def __init__(self, limits: DoorLimits) -> None:
        self.limits = limits
        self._half_open: Counter[str] = Counter()
        self._links: Counter[str] = Counter()

    def knock(self, site: str) -> bool:
        """Whether a new connection from `site` may begin its handshake; counted until `turn_away` or `enter`."""
        if self._half_open.total() >= self.limits.half_open or self._half_open[site] >= self.limits.half_open_per_site:
            return False
        self._half_open[site] += 1
        return True

    def turn_away(self, site: str) -> None:
        """The handshake is over, well or badly."""
        _less(self._half_open, site)

    def refusal(self, site: str) -> str:
        """Why a proven peer gets no link now; "" where it gets one."""
        if self._links.total() >= self.limits.links:
            return f"this node has {self.limits.links} links, its most; try later or another peer"
        if self._links[site] >= self.limits.links_per_site:
            return f"{self.limits.links_per_site} links from your address are the most; close one first"
        return ""

    def enter(self, site: str) -> None:
        self._links[site] += 1

    def leave(self, site: str) -> None:
        _less(self._links, site)


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
