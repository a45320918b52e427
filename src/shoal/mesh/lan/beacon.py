"""When to speak and whom to believe on the LAN: pure, `(state, datagram or time) -> (state, what to do)`.

Rules that stay true in this file:
- own datagrams go out at most once in `GAP_S` and mostly once in `PERIOD_S`, whatever is heard;
- strangers cost little: signatures are checked for this swarm's tag only, at most `CHECKS_PER_S` a second;
- at most `MAX_PEERS` peers are remembered, each until it was silent for `FORGET_S`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from shoal.core.errors import PeerFault
from shoal.mesh.address import Address
from shoal.mesh.lan.announcement import Announcement, Ports, is_of_swarm, parse_announcement, require_valid
from shoal.mesh.peer_id import PeerId

PERIOD_S = 30.0
FORGET_S = 100.0
GAP_S = 1.0
FIRST_S = (0.0, 1.0, 3.0)
"""Said three times at the start: Wi-Fi sends multicast without repeating what is lost."""

ANSWER_S = (0.02, 0.12)
"""A random wait before an answer, so that twenty peers do not answer in one moment."""

CHECKS_PER_S = 50.0
MAX_PEERS = 256


@dataclass(frozen=True, slots=True)
class Heard:
    """A datagram, the IP it came from (with %scope when link-local) and when: monotonic and wall seconds."""

    data: bytes
    ip: str
    now: float
    wall: float


@dataclass(frozen=True, slots=True)
class _Known:
    address: Address
    last: float
    said: int


class Beacon:
    """`own` and `secret` are this peer's; `due` says when to call `tick` next."""

    def __init__(self, own: PeerId, secret: bytes, now: float, rng: random.Random) -> None:
        self._own = own
        self._secret = secret
        self._random = rng
        self._planned = [now + wait for wait in FIRST_S]
        self._asks_left = 1
        self._last_said = now - GAP_S
        self._known: dict[PeerId, _Known] = {}
        self._checks, self._checked_at = CHECKS_PER_S, now
        self.num_refused = 0
        self.heard_self = 0

    @property
    def due(self) -> float:
        """When something is to be said, in monotonic seconds."""
        return max(self._planned[0], self._last_said + GAP_S)

    def peers(self) -> tuple[Address, ...]:
        return tuple(known.address for known in self._known.values())

    def ask(self, now: float) -> None:
        """Ask who is here as soon as the gap allows."""
        self._asks_left = 1
        self._plan(now)

    def tick(self, now: float) -> bool | None:
        """Whether to announce now, and if so whether to ask: True asks, False tells, None is silent."""
        self._known = {peer: known for peer, known in self._known.items() if now - known.last < FORGET_S}
        if now < self.due:
            return None
        self._planned = [at for at in self._planned if at > now]
        self._last_said = now
        if not self._planned:
            self._plan(now + PERIOD_S * self._random.uniform(0.9, 1.1))
        asks, self._asks_left = self._asks_left > 0, 0
        return asks

    def hear(self, heard: Heard) -> Address | None:
        """The address of a peer of this swarm that is new or has moved."""
        try:
            said = parse_announcement(heard.data)
            if said.peer == self._own:
                self.heard_self += 1
                return None
            if not is_of_swarm(said, self._secret) or not self._is_worth_checking(said, heard):
                return None
            require_valid(said, heard.wall)
        except PeerFault:
            self.num_refused += 1
            return None
        if said.asks:
            self._plan(heard.now + self._random.uniform(*ANSWER_S))
        return self._remember(said, heard)

    def _remember(self, said: Announcement, heard: Heard) -> Address | None:
        known = self._known.get(said.peer)
        fresh = _address(said.peer, heard.ip, said.ports)
        if known is None and len(self._known) >= MAX_PEERS:
            return None
        merged = known.address.merged(fresh) if known and _is_same_ports(known.address, said.ports) else fresh
        self._known[said.peer] = _Known(merged, heard.now, said.wall)
        is_news = known is None or set(merged.udp + merged.tcp) != set(known.address.udp + known.address.tcp)
        return merged if is_news else None

    def _is_worth_checking(self, said: Announcement, heard: Heard) -> bool:
        """Not a repetition of older words, and within the budget of signature checks."""
        known = self._known.get(said.peer)
        if known is not None and said.wall < known.said:
            return False
        self._checks = min(CHECKS_PER_S, self._checks + (heard.now - self._checked_at) * CHECKS_PER_S)
        self._checked_at = heard.now
        if self._checks < 1:
            self.num_refused += 1
            return False
        self._checks -= 1
        return True

    def _plan(self, at: float) -> None:
        self._planned = sorted({*self._planned[:7], at})


def _address(peer: PeerId, ip: str, ports: Ports) -> Address:
    host = f"[{ip}]" if ":" in ip else ip
    udp = (f"{host}:{ports.udp}",) if ports.udp else ()
    return Address(peer, udp, (f"{host}:{ports.tcp}",) if ports.tcp else ())


def _is_same_ports(address: Address, ports: Ports) -> bool:
    """Another port means a restart: the old endpoints are dead."""
    found = (
        {int(hint.rpartition(":")[2]) for hint in address.udp},
        {int(hint.rpartition(":")[2]) for hint in address.tcp},
    )
    return found == ({ports.udp} - {0}, {ports.tcp} - {0})
