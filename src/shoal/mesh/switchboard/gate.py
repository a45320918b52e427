"""How many links there may be, and how fast strangers may add some."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """links          of this node, both ways.
    links_per_peer  more than two only while a better one replaces another.
    inbound_per_s   new incoming links a second, on average; `inbound_burst` at once.
    idle_s          a link without traffic for that long is closed, unless kept or busy.
    surplus_s       a surplus link is closed when nothing went over it for that long.
    dial_timeout_s  for one dial over all carriers.
    stagger_s       between the starts of two carriers (RFC 8305 section 5).
    upgrade_s       between two tries to replace a relayed link by a direct one.
    """

    links: int = 1024
    links_per_peer: int = 4
    inbound_per_s: float = 50.0
    inbound_burst: int = 200
    idle_s: float = 300.0
    surplus_s: float = 10.0
    dial_timeout_s: float = 15.0
    stagger_s: float = 0.25
    upgrade_s: float = 60.0


class Gate:
    """A token bucket for incoming links."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._tokens = float(limits.inbound_burst)
        self._time = now

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
