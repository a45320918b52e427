"""Moves this node to another relay when its own falls silent. The library keeps the dead one for minutes.

Every WATCH_S the library is asked whether it is connected to its home relay. After MISSES times "no" the home is taken
off the library's list, which makes it choose another at once; it is put back after RETURN_S, for it may have only
restarted. Links that went through the dead relay are ended: the library would send even a new handshake with their
peer along their dead path. Whoever dials again, with the peer's other relays in its address, gets through. With one
relay there is nowhere to go and nothing is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoal.core.clock import Clock

log = logging.getLogger(__name__)

WATCH_S = 0.5
MISSES = 2
RETURN_S = 30.0


class Wishes(Protocol):
    """What the watch needs of the carrier's configuration."""

    @property
    def relays(self) -> tuple[str, ...]: ...

    @property
    def relay_token(self) -> str | None: ...

    @property
    def clock(self) -> Clock: ...


def relay_record(iroh: Any, url: str, token: str | None) -> Any:
    """A relay as the library wants it. Without a QUIC port: address discovery at the relay needs a certificate of a
    public authority; observers replace it, and waiting for it costs 3 s at each start."""
    return iroh.RelayConfig(url=url, quic_port=None, auth_token=token)


@dataclass(slots=True)
class Patience:
    """What to take off the list and what to put back: plain data, plain time."""

    relays: tuple[str, ...]
    misses: int = 0
    resting: dict[str, float] = field(default_factory=dict)

    def judge(self, home: str | None, is_online: bool, now: float) -> tuple[str | None, tuple[str, ...]]:
        """The relay to take off now, if any, and those whose rest is over."""
        back = tuple(url for url, until in self.resting.items() if until <= now)
        for url in back:
            del self.resting[url]
        self.misses = 0 if is_online else self.misses + 1
        if home is None or self.misses < MISSES or len(self.resting) + 1 >= len(self.relays):
            return None, back
        self.misses = 0
        self.resting[home] = now + RETURN_S
        return home, back


class RelayWatch:
    """The loop around `Patience`."""

    def __init__(self, endpoint: Any, iroh: Any, wishes: Wishes, lost: Callable[[str], Awaitable[None]]) -> None:
        self._endpoint, self._iroh, self._wishes, self._lost = endpoint, iroh, wishes, lost
        self._patience = Patience(wishes.relays)

    async def run(self) -> None:
        while True:
            await self._wishes.clock.sleep(WATCH_S)
            home = self._endpoint.addr().relay_url()
            off, back = self._patience.judge(home, await self._is_online(), self._wishes.clock.monotonic())
            for url in back:
                await self._endpoint.insert_relay(relay_record(self._iroh, url, self._wishes.relay_token))
            if off is not None:
                log.warning("relay %s does not answer; moving to another", off)
                await self._endpoint.remove_relay(off)
                await self._lost(off)

    async def _is_online(self) -> bool:
        try:
            await asyncio.wait_for(self._endpoint.online(), WATCH_S)
        except TimeoutError:
            return False
        return True
