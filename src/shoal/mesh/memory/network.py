"""Hosts, what lies between them, and datagrams that NATs let through or do not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoal.core.clock import Clock
from shoal.mesh.memory.agenda import Agenda
from shoal.mesh.memory.nat import Endpoint, Nat, NatKind
from shoal.mesh.peer_id import PeerId

OBSERVER: Endpoint = ("192.0.2.1", 1)
"""Stands for any public peer that says where a packet came from."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Between two hosts, each way: seconds of delay, share of packets lost, bytes a second."""

    delay_s: float = 0.0
    loss: float = 0.0
    bytes_per_s: float = math.inf


class Resident(Protocol):
    """What lives on a host: it ends when the host does."""

    def crash(self) -> None: ...


class Watcher(Protocol):
    """Told whenever who reaches whom has changed."""

    def check(self) -> None: ...


@dataclass(eq=False, slots=True)
class Host:
    """A machine. `ports`: who gets a datagram, called with it and the endpoint it seems to come from."""

    name: str
    ip: str
    nat: Nat | None
    is_up: bool = True
    ports: dict[int, Callable[[Any, Endpoint], None]] = field(default_factory=dict)
    residents: list[Resident] = field(default_factory=list)

    def free_port(self) -> int:
        return next(port for port in range(4_000, 65_536) if port not in self.ports)


@dataclass(eq=False, slots=True)
class Relay:
    host: Host
    members: dict[PeerId, tuple[Host, Callable[[Any, str], None]]] = field(default_factory=dict)


class Network:
    """Everything of one simulation. Two with the same seed, clock and calls do the same."""

    def __init__(self, clock: Clock, seed: int = 0, conditions: Conditions | None = None) -> None:
        self.clock = clock
        self.agenda = Agenda(clock)
        self.random = random.Random(seed)  # noqa: S311 - a simulation's dice
        self.relays: dict[str, Relay] = {}
        self.watchers: dict[Watcher, None] = {}
        self._default = conditions or Conditions()
        self._conditions: dict[frozenset[Host], Conditions] = {}
        self._hosts: dict[str, list[Host]] = {}
        self._groups: dict[Host, int] = {}
        self._count = 0

    def host(self, name: str, nat: NatKind = "none", beside: Host | None = None) -> Host:
        """A new host: public, behind a NAT of its own, or on the LAN of `beside` behind the same one."""
        self._count += 1
        number = self._count
        public = f"44.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        behind = beside.nat if beside else (Nat(nat, public) if nat != "none" else None)
        inside = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" if behind else public
        host = Host(name, inside, behind)
        self._hosts.setdefault(behind.public_ip if behind else inside, []).append(host)
        return host

    def relay(self, host: Host) -> str:
        """`host` is a relay from now on; its URL. Relays are reached by TCP, so no NAT is in the way."""
        url = f"memory://{host.ip}"
        self.relays[url] = Relay(host)
        return url

    def between(self, one: Host, other: Host, conditions: Conditions) -> None:
        self._conditions[frozenset((one, other))] = conditions

    def conditions(self, one: Host, other: Host) -> Conditions:
        return self._conditions.get(frozenset((one, other)), self._default)

    def partition(self, *groups: Iterable[Host]) -> None:
        """From now on only hosts of one group reach each other; hosts in no group are a group together."""
        self._groups = {host: number + 1 for number, group in enumerate(groups) for host in group}
        self._changed()

    def heal(self) -> None:
        self.partition()

    def crash(self, host: Host) -> None:
        """Gone without a word: nobody else is told."""
        host.is_up = False
        for resident in list(host.residents):
            resident.crash()
        host.ports.clear()
        self._changed()

    def restart(self, host: Host) -> None:
        """Reachable again, with nothing running."""
        host.is_up = True

    def reaches(self, one: Host, other: Host) -> bool:
        return one.is_up and other.is_up and self._groups.get(one, 0) == self._groups.get(other, 0)

    def send(self, host: Host, port: int, to: Endpoint, message: Any) -> None:
        """A datagram. It arrives, or nobody learns that it did not."""
        inside = (host.ip, port)
        target = self._beside(host, to[0])
        if target is not None:
            self._carry(host, target, lambda: _deliver(target, to[1], message, inside))
            return
        source = host.nat.outbound(inside, to, self.clock.monotonic()) if host.nat else inside
        behind = self._hosts.get(to[0])
        if source is None or not behind:
            return
        nat = behind[0].nat
        if nat is None:
            self._carry(host, behind[0], lambda: _deliver(behind[0], to[1], message, source))
        else:
            self._carry(host, behind[0], lambda: self._enter(nat, behind, source, to[1], message))

    def relayed(self, host: Host, url: str, to: PeerId, message: Any) -> bool:
        """`message` through a relay; False where the relay or the peer at it cannot be reached."""
        relay = self.relays.get(url)
        found = relay.members.get(to) if relay and self.reaches(host, relay.host) else None
        if relay is None or found is None or not self.reaches(relay.host, found[0]):
            return False
        delay_s = self.conditions(host, relay.host).delay_s + self.conditions(relay.host, found[0]).delay_s
        self.agenda.after(delay_s, lambda: found[1](message, url))
        return True

    def _beside(self, host: Host, ip: str) -> Host | None:
        if host.nat is None:
            return None
        return next((other for other in self._hosts[host.nat.public_ip] if other.ip == ip), None)

    def _carry(self, one: Host, other: Host, arrive: Callable[[], None]) -> None:
        conditions = self.conditions(one, other)
        if self.reaches(one, other) and not (conditions.loss and self.random.random() < conditions.loss):
            self.agenda.after(conditions.delay_s, arrive)

    def _enter(self, nat: Nat, behind: list[Host], source: Endpoint, port: int, message: Any) -> None:
        inside = nat.inbound(source, port, self.clock.monotonic())
        target = next((host for host in behind if inside and host.ip == inside[0]), None)
        if target is not None and inside is not None:
            _deliver(target, inside[1], message, source)

    def _changed(self) -> None:
        for watcher in list(self.watchers):
            watcher.check()


def _deliver(target: Host, port: int, message: Any, source: Endpoint) -> None:
    if target.is_up and port in target.ports:
        target.ports[port](message, source)
