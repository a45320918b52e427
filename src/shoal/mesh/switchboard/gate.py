"""How many links there may be, and how fast strangers may add some: over all, and from one site.

A site is an IPv4 address, the /64 of an IPv6 one, or a relay: whoever has one address does not fill the node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from shoal.mesh.carrier import LinkInfo

SITES = 4096
"""Whose recent links are remembered; the one seen longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """links          of this node, both ways.
    links_per_peer  more than two only while a better one replaces another.
    links_per_site  incoming links from one site.
    inbound_per_s   new incoming links a second, on average; `inbound_burst` at once. From one site half of either.
    idle_s          a link without traffic for that long is closed, unless kept or busy.
    surplus_s       a surplus link is closed when nothing went over it for that long.
    dial_timeout_s  for one dial over all carriers.
    stagger_s       between the starts of two carriers (RFC 8305 section 5).
    near_stagger_s  the same to a machine near by, which answers or refuses at once unless it is very busy.
    upgrade_s       between two tries to replace a relayed link by a direct one.
    """

    links: int = 1024
    links_per_peer: int = 4
    links_per_site: int = 256
    inbound_per_s: float = 50.0
    inbound_burst: int = 200
    idle_s: float = 300.0
    surplus_s: float = 10.0
    dial_timeout_s: float = 15.0
    stagger_s: float = 0.25
    near_stagger_s: float = 1.0
    upgrade_s: float = 60.0


class Gate:
    """Token buckets for incoming links."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._tokens = float(limits.inbound_burst)
        self._time = now
        self._sites: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def refusal_of_site(self, site: str, links: Iterable[LinkInfo], now: float) -> str:
        """Why a link from `site` is not taken beside those there are; "" where that is no reason. Ask this first."""
        limits = self._limits
        burst, rate = limits.inbound_burst / 2, limits.inbound_per_s / 2
        tokens, at = self._sites.pop(site, (burst, now))
        tokens = min(tokens + (now - at) * rate, burst)
        is_fast = tokens < 1
        self._sites[site] = (tokens if is_fast else tokens - 1, now)
        if len(self._sites) > SITES:
            self._sites.popitem(last=False)
        if is_fast:
            return f"more than {rate:g} new links a second from your address; try again in a few seconds"
        if sum(not link.is_dialer and site_of(link) == site for link in links) >= limits.links_per_site:
            return f"{limits.links_per_site} links from your address are the most; close one first"
        return ""

    def refusal(self, links: int, of_peer: int, now: float) -> str:
        """Why an incoming link is not taken; "" where it is."""
        limits = self._limits
        self._tokens = min(self._tokens + (now - self._time) * limits.inbound_per_s, limits.inbound_burst)
        self._time = now
        if of_peer >= limits.links_per_peer:
            return f"you have {of_peer} links to this node; {limits.links_per_peer} are the most"
        if links >= limits.links:
            return f"this node has {links} links, its most; try another peer"
        if self._tokens < 1:
            return f"more than {limits.inbound_per_s:g} new links a second; try again in a few seconds"
        self._tokens -= 1
        return ""


def site_of(link: LinkInfo) -> str:
    """Where a link comes from: its network, or the relay's URL."""
    host = link.remote.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return link.remote
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(IPv6Address(int(address) >> 64 << 64))
    return str(address)
