"""From what observers saw to a kind of NAT (RFC 4787 sections 4 and 5). Pure: observations in, a verdict out.

    none       an observer saw an address this machine has itself: nothing translates
    cone       every observer saw the same address: one mapping for all, hole punching works
    symmetric  observers saw different ports or addresses: a mapping for each destination; only open peers are direct
    unseen     one observer only: cone or symmetric cannot be told apart
    blocked    observers could be reached, none of them over UDP
    unknown    nobody could be asked

Filtering is `open` once a stranger's first packet came straight in, else unknown: silence proves nothing.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from shoal.mesh.peer_id import PeerId

Kind = Literal["none", "cone", "symmetric", "unseen", "blocked", "unknown"]

ADVICE: dict[Kind, str] = {
    "none": "peers reach this machine directly",
    "cone": "peers behind most NATs reach this machine by hole punching",
    "symmetric": "peers behind a port-restricted or symmetric NAT need a relay; map a port (UPnP, NAT-PMP) or use IPv6",
    "unseen": "ask a second public peer to be sure",
    "blocked": "UDP does not get out; everything goes through a relay over TCP. Allow outgoing UDP in the firewall",
    "unknown": "no public peer could be asked; check the network and the bootstrap peers",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What one observer answered: our "ip:port", or None where the link to it is relayed or failed (`why`)."""

    observer: PeerId
    seen: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Nat:
    """The verdict. `external` are addresses worth telling peers, most confirmed first."""

    kind: Kind
    external: tuple[str, ...]
    is_open: bool
    why: str

    @property
    def advice(self) -> str:
        return ADVICE[self.kind]


def classify(observations: tuple[Observation, ...], local: tuple[str, ...], is_open: bool = False) -> Nat:
    """`local` are the machine's own "ip:port"; `is_open`: a stranger's packet has come straight in."""
    by_family = [
        _family([item for item in observations if item.seen and version_of(item.seen) == version], local)
        for version in (4, 6)
    ]
    found = [nat for nat in by_family if nat is not None]
    if found:
        external = tuple(address for nat in found for address in nat.external)
        return Nat(found[0].kind, external, is_open, "; ".join(nat.why for nat in found))
    if not observations:
        return Nat("unknown", (), is_open, "no public peer was asked")
    if all(item.why == RELAYED for item in observations):
        return Nat("blocked", (), is_open, f"{len(observations)} observers, all reached through a relay only")
    return Nat("unknown", (), is_open, f"{len(observations)} observers asked, no answer of use")


RELAYED = "reached through a relay only"


def _family(seen: list[Observation], local: tuple[str, ...]) -> Nat | None:
    """The verdict for one address family; None where nobody saw one."""
    if not seen:
        return None
    counts = Counter(str(item.seen) for item in seen)
    best = counts.most_common(1)[0][0]
    if best in local:
        return Nat("none", (best,), False, f"{best} is this machine's own address")
    if len(seen) == 1:
        return Nat("unseen", (best,), False, f"one observer saw {best}")
    if len(counts) == 1:
        return Nat("cone", (best,), False, f"{len(seen)} observers saw {best}")
    confirmed = tuple(address for address, times in counts.most_common() if times > 1)
    return Nat("symmetric", confirmed, False, f"{len(seen)} observers saw {len(counts)} addresses: {', '.join(counts)}")


def version_of(endpoint: str) -> int | None:
    """4 or 6 for a public "ip:port"; None for what nobody outside could have seen."""
    try:
        ip = ipaddress.ip_address(endpoint.rsplit(":", 1)[0].strip("[]"))
    except ValueError:
        return None
    return None if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified else ip.version
