"""The node's part: ask observers and the router, decide, and tell the carrier where this node may be reached."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

from shoal.core.clock import Clock
from shoal.core.errors import ShoalError
from shoal.mesh.address import Address
from shoal.mesh.calls import Caller
from shoal.mesh.nat import natpmp, pcp, upnp
from shoal.mesh.nat.classify import Nat, classify
from shoal.mesh.nat.journal import Journal
from shoal.mesh.nat.observe import observe
from shoal.mesh.peer_id import PeerId

REFRESH_S = 60.0
"""Between observations: below the two minutes for which RFC 4787 asks a NAT to keep a mapping."""

OBSERVERS = 3


class Addressed(Protocol):
    """What the service needs of the quic carrier."""

    def address(self) -> Address: ...

    def bound(self) -> tuple[str, ...]: ...

    async def set_external(self, endpoints: tuple[str, ...]) -> None: ...


class NatService:
    """Keeps the node's outside addresses true. `run` is a loop for as long as the node lives."""

    def __init__(self, carrier: Addressed, caller: Caller, clock: Clock) -> None:
        self._carrier, self._caller, self._clock = carrier, caller, clock
        self.journal = Journal(clock)
        self.nat = classify((), ())
        self._mapped: natpmp.Mapping | None = None
        self._by = ""
        self._nonce = os.urandom(pcp.NONCE_BYTES)
        self._is_open = False

    async def run(self, observers: Callable[[], Awaitable[tuple[PeerId, ...]]], gateway: str | None) -> None:
        """Observe now and every REFRESH_S; ask `gateway` (None: no router to ask) for a port, and again in time."""
        if gateway is not None:
            await self.map_port(gateway)
        while True:
            await self.refresh(await observers())
            await self._clock.sleep(REFRESH_S)
            if gateway is not None and self._mapped is not None:
                await self.map_port(gateway)

    def was_reached(self) -> None:
        """A stranger's first packet came straight in: the NAT, if any, filters nothing."""
        self._is_open = True

    async def refresh(self, observers: tuple[PeerId, ...]) -> Nat:
        """Ask up to OBSERVERS of them, decide, tell the carrier."""
        seen = await observe(self._caller, observers[:OBSERVERS])
        for item in seen:
            self.journal.note(f"ask {item.observer.short} for our address", item.seen or item.why, bool(item.seen))
        known = set(self.nat.external) | ({self._mapped.external} if self._mapped else set())
        local = tuple(hint for hint in self._carrier.address().udp if hint not in known)
        self.nat = classify(seen, local, self._is_open)
        self.journal.note("decide what NAT there is", f"{self.nat.kind}: {self.nat.why}", self.nat.kind != "unknown")
        await self._tell()
        return self.nat

    async def map_port(self, gateway: str) -> None:
        """Ask the router for our UDP port; a router without the service is noted, never an error."""
        port = int(self._carrier.bound()[0].rsplit(":", 1)[1])
        self._mapped = None
        ways: tuple[tuple[str, Callable[[], Awaitable[natpmp.Mapping]]], ...] = (
            ("PCP", lambda: pcp.map_port(gateway, port, self._nonce)),
            ("NAT-PMP", lambda: natpmp.map_port(gateway, port)),
            ("UPnP", lambda: upnp.map_port(gateway, port)),
        )
        for name, ask in ways:
            what = f"ask the router {gateway} for a port by {name}"
            try:
                self._mapped, self._by = await ask(), name
            except ShoalError as error:
                self.journal.note(what, str(error), is_good=False)
            else:
                self.journal.note(what, f"{self._mapped.external} for {self._mapped.lifetime_s} s")
                break
        await self._tell()

    async def close(self, gateway: str | None) -> None:
        """Give the router its port back."""
        if gateway is None or self._mapped is None:
            return
        try:
            async with asyncio.timeout(1.0):
                await self._unmap(gateway, self._mapped)
        except (ShoalError, TimeoutError) as error:
            self.journal.note(f"give the router {gateway} its port back", str(error) or "no answer", is_good=False)

    async def _unmap(self, gateway: str, mapped: natpmp.Mapping) -> None:
        if self._by == "UPnP":
            await upnp.unmap_port(gateway, int(mapped.external.rpartition(":")[2]))
        elif self._by == "PCP":
            await pcp.unmap_port(gateway, mapped.internal_port, self._nonce)
        else:
            await natpmp.unmap_port(gateway, mapped.internal_port)

    async def _tell(self) -> None:
        mapped = (self._mapped.external,) if self._mapped else ()
        await self._carrier.set_external(tuple(dict.fromkeys(mapped + self.nat.external)))
