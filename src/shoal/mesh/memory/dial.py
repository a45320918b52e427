"""The handshake's messages, what a dial has heard so far, and how it explains that nobody answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from shoal.core.errors import InvalidRequest
from shoal.mesh.address import Address
from shoal.mesh.memory.link import MemoryLink
from shoal.mesh.memory.nat import Endpoint
from shoal.mesh.memory.network import Host
from shoal.mesh.peer_id import PeerId

PROBE_S = 0.2
"""Between two tries at one endpoint."""
PUNCH_S = 1.0
"""How long a relayed link waits for a direct one to appear."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The dialer's first words. `endpoints`: where it may be reached, for the other side to punch towards."""

    attempt: int
    dialer: PeerId
    host: Host
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer; `link` is the dialer's side of the link, should it confirm."""

    attempt: int
    peer: PeerId
    link: MemoryLink


@dataclass(frozen=True, slots=True)
class Punch:
    """Opens the sender's NAT, and where it comes through shows the dialer an endpoint nobody knew."""

    attempt: int


@dataclass(eq=False, slots=True)
class Attempt:
    """One dial. `targets` are probed; `best` is the first direct link, `relayed` the first through a relay."""

    wanted: PeerId
    targets: list[Endpoint] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    best: MemoryLink | None = None
    relayed: MemoryLink | None = None
    strangers: dict[str, PeerId] = field(default_factory=dict)

    def hear(self, welcome: Welcome, source: str) -> None:
        if welcome.peer != self.wanted:
            self.strangers[source] = welcome.peer
        elif welcome.link.end.info.path == "relayed":
            self.relayed = self.relayed or welcome.link
        else:
            self.best = self.best or welcome.link
        self.heard.set()


def endpoint(text: str) -> Endpoint:
    """(ip, port) of "ip:port". InvalidRequest for anything else."""
    ip, _, port = text.rpartition(":")
    if not ip or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536:
        raise InvalidRequest(f'expected "ip:port", found {text[:80]!r}', "address")
    return ip, int(port)


def text(where: Endpoint) -> str:
    return f"{where[0]}:{where[1]}"


def failures(address: Address, attempt: Attempt, down: tuple[str, ...], timeout_s: float) -> tuple[str, ...]:
    """Every endpoint and relay of the address with what became of it. `down`: relays that did not reach the peer."""
    if address.is_empty:
        return ("the address has no endpoint and no relay: ask a peer that knows more, or wait for its announcement",)
    silent = f"no answer within {timeout_s:g} s: host down, firewall, or a NAT that lets nobody in"
    lost = "relay down, or the peer is not connected to it"
    steps = [f"udp {hint}: {_stranger(attempt, hint) or silent}" for hint in address.udp]
    steps += [f"relay {url}: {lost if url in down else silent}" for url in address.relays]
    return tuple(steps) or ("no hint for this carrier: the memory carrier needs udp endpoints or relays",)


def _stranger(attempt: Attempt, hint: str) -> str:
    other = attempt.strangers.get(hint)
    return f"answered by another peer, {other.short}; expected {attempt.wanted.short}" if other else ""
