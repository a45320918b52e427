"""LAN discovery at work: a thin loop of sockets around `beacon`."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.core.clock import Clock
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.lan.announcement import MAX_DATAGRAM, Ports, announced
from shoal.mesh.lan.beacon import Beacon, Heard
from shoal.mesh.lan.sockets import PORT, Interface, destination, hears_nothing, interfaces, opened, why
from shoal.mesh.peer_id import PeerId

RESCAN_S = 20.0
"""How often interfaces that came or went are looked for."""

DEAF_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """ports    where this peer's carriers listen now.
    found    hears the address of each peer of the swarm that is new here or has moved.
    secret   the private swarm's, or b"" for the public one.
    look     which interfaces there are.
    """

    identity: PrivateKey
    clock: Clock
    ports: Callable[[], Ports]
    found: Callable[[Address], None]
    secret: bytes = b""
    port: int = PORT
    look: Callable[[], Sequence[Interface]] = field(default=interfaces)


class Lan:
    """Announces this peer and hears others while `run` runs."""

    def __init__(self, here: Surroundings) -> None:
        self._here = here
        self._own = PeerId(here.identity.public)
        self._beacon = Beacon(self._own, here.secret, here.clock.monotonic(), random.Random())  # noqa: S311  jitter
        self._sockets: dict[Interface, socket.socket] = {}
        self._refused: dict[Interface, str] = {}
        self._began = here.clock.monotonic()
        self._moved = asyncio.Event()

    def peers(self) -> tuple[Address, ...]:
        """Peers of the swarm heard in the last minutes."""
        return self._beacon.peers()

    def problems(self) -> tuple[str, ...]:
        """Why peers on some network will not be found, each with what to do; empty when all is well."""
        found = list(self._refused.values())
        if not self._sockets and not self._refused:
            found.append("LAN discovery is off: this machine has no network interface")
        is_deaf = self._here.clock.monotonic() - self._began > DEAF_AFTER_S and not self._beacon.heard_self
        if self._sockets and is_deaf:
            found.append(hears_nothing([interface.label for interface in self._sockets], self._here.port))
        return tuple(found)

    def ask(self) -> None:
        """Ask who is here, now."""
        self._beacon.ask(self._here.clock.monotonic())
        self._moved.set()

    async def run(self) -> None:
        """Until cancelled; then every socket is closed."""
        try:
            while True:
                self._rescan()
                until = self._here.clock.monotonic() + RESCAN_S
                while self._here.clock.monotonic() < until:
                    self._say()
                    await self._wait(min(self._beacon.due, until))
        finally:
            for interface in list(self._sockets):
                self._close(interface)

    def _say(self) -> None:
        now = self._here.clock.monotonic()
        asks = self._beacon.tick(now)
        if asks is None:
            return
        wall = int(self._here.clock.wall())
        data = announced(self._here.identity, self._here.secret, self._here.ports(), wall, asks)
        for interface, sock in list(self._sockets.items()):
            try:
                sock.sendto(data, destination(interface, self._here.port))
            except BlockingIOError:
                continue  # a full send buffer: the next announcement will do
            except OSError as error:
                self._close(interface)
                self._refused[interface] = why(error, interface)

    def _rescan(self) -> None:
        present = set(self._here.look())
        for interface in set(self._sockets) - present:
            self._close(interface)
        self._refused = {interface: text for interface, text in self._refused.items() if interface in present}
        for interface in sorted(present - set(self._sockets), key=lambda one: one.label):
            try:
                self._open(interface)
                self._refused.pop(interface, None)
            except OSError as error:
                self._refused[interface] = why(error, interface)

    def _open(self, interface: Interface) -> None:
        sock = opened(interface, self._here.port)
        self._sockets[interface] = sock
        asyncio.get_running_loop().add_reader(sock, self._receive, sock)

    def _close(self, interface: Interface) -> None:
        sock = self._sockets.pop(interface)
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(32):  # what is left is read in the loop's next turn
            try:
                data, source = sock.recvfrom(MAX_DATAGRAM + 1)
            except OSError:
                return
            self._hear(data, _ip(source))

    def _hear(self, data: bytes, ip: str) -> None:
        clock = self._here.clock
        address = self._beacon.hear(Heard(data, ip, clock.monotonic(), clock.wall()))
        self._moved.set()  # an answer may be due
        if address is not None:
            self._here.found(address)

    async def _wait(self, until: float) -> None:
        """Until a time or until the beacon's plan may have changed."""
        self._moved.clear()
        sleep = asyncio.ensure_future(self._here.clock.sleep(max(0.001, until - self._here.clock.monotonic())))
        moved = asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait((sleep, moved), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            moved.cancel()


def _ip(source: tuple[Any, ...]) -> str:
    """With the interface where it means nothing without: Python gives that apart."""
    ip, scope = str(source[0]), source[3] if len(source) > 3 else 0
    return f"{ip}%{scope}" if scope and "%" not in ip else ip
