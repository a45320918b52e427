"""From address hints to attempts: which endpoints are tried, when, and what to say when nothing answered.

The library tries all IP endpoints and one relay of an attempt at once. A second relay is a second attempt, begun
when the first has not answered within `STAGGER_S`, as in RFC 8305 for two families of addresses.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from shoal.mesh.address import Address

STAGGER_S = 1.0
MAX_ATTEMPTS = 4
"""Relays tried for one dial; a peer listens at one of its few."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """IP endpoints and at most one relay, begun `after_s` seconds into the dial."""

    udp: tuple[str, ...]
    relay: str | None
    after_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """`refused` names hints that are no addresses, and why."""

    attempts: tuple[Attempt, ...]
    refused: tuple[str, ...]


def plan(address: Address, uses_relays: bool) -> Plan:
    """What to try for `address`; no attempts where it names nothing this carrier can use."""
    udp = tuple(hint for hint in address.udp if is_endpoint(hint))
    relays = tuple(url for url in address.relays if is_relay_url(url))[:MAX_ATTEMPTS] if uses_relays else ()
    refused = tuple(f"udp {hint[:80]}: not an address (expected ip:port)" for hint in address.udp if hint not in udp)
    refused += tuple(f"relay {url[:80]}: {_why_not(url, uses_relays)}" for url in address.relays if url not in relays)
    if not relays:
        return Plan((Attempt(udp, None, 0.0),) if udp else (), refused)
    return Plan(tuple(Attempt(udp, url, i * STAGGER_S) for i, url in enumerate(relays)), refused)


def _why_not(url: str, uses_relays: bool) -> str:
    if not uses_relays:
        return "this node uses no relays (its own list is empty)"
    return "one relay too many" if is_relay_url(url) else "not an http(s) URL"


def is_endpoint(text: str) -> bool:
    """Whether `text` is "ip:port" or "[ipv6]:port" with a port that can be sent to."""
    host, _, port = text.rpartition(":")
    try:
        version = ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        return False
    is_bracketed = host.startswith("[") and host.endswith("]")
    return is_bracketed == (version == 6) and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def is_relay_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and text.isprintable() and " " not in text


def explain(tried: Plan, is_online: bool, timeout_s: float, causes: tuple[str, ...]) -> tuple[str, ...]:
    """One line for each endpoint, in the order of `tried`, then what the library said, then what to do."""
    steps = list(tried.refused)
    if tried.attempts:
        steps += [f"udp {hint}: no answer within {timeout_s:g} s" for hint in tried.attempts[0].udp]
    relays = [item.relay for item in tried.attempts if item.relay]
    steps += [f"relay {url}: no answer through it within {timeout_s:g} s" for url in relays]
    steps += [f"the connection failed: {cause}" for cause in dict.fromkeys(causes)]
    if relays and not is_online:
        steps.append(
            "this node is connected to no relay: check that its relays can be reached and take its token (doctor --net)"
        )
    return tuple(steps)
