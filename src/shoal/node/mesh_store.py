"""What the swarm knows in common, kept on disk: each peer's signed lines on the models it serves and their prices.

Membership tells load in seconds and forgets; the directory finds peers; this survives everybody's restart, and a line
cannot be forged, or taken back unseen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from shoal.core.clock import Clock
from shoal.core.errors import ShoalError
from shoal.core.service import ModelCard
from shoal.crypto.hashes import blake3_digest
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import Ground, Namespace, Store
from shoal.mesh.store.registry import MAX_MODEL, ModelOffer, Registry
from shoal.node.mesh_parts import Parts
from shoal.trust.reputation.ledger import StoreLedger

_log = logging.getLogger(__name__)

PUBLISH_S = 5.0
"""Between two looks at what is served; the same again writes nothing."""
GREET_S = 0.5
MEETINGS = 8
MEETING_S = 60.0
"""Peers compared with at once, and the longest that one of them may take."""
MICROCENTS = 1e8
"""In a US dollar."""


class MeshStore:
    """The swarm's store at this node. `run` for as long as the node lives."""

    def __init__(self, parts: Parts, folder: Path, clock: Clock) -> None:
        secret = parts.place.secret
        swarm = "public" if secret is None else blake3_digest("shoal swarm name v1", secret).hex()
        self._clock = clock
        self._me = parts.me
        path = folder / f"store-{swarm[:16]}.sqlite"
        self._greeted: set[PeerId] = set()
        self._meeting = asyncio.Semaphore(MEETINGS)
        self._connected: Callable[[], list[PeerId]] = parts.switchboard.connected
        ground = Ground(parts.rpc, parts.rpc, clock, parts.place.key, self._connected, path)
        self._store = Store(ground, Namespace(f"shoal {swarm}"))
        self._registry = Registry(self._store, parts.me)
        self.ledger = StoreLedger(parts.me, self._store.replica, self._store.write)

    def sellers(self, model: str) -> list[PeerId]:
        """Peers that say they serve `model`, cheapest first."""
        return [item.peer for item in self._registry.listings(model) if item.peer != self._me]

    async def run(self, cards: Callable[[], Sequence[ModelCard]], price_usd_per_mtok: float) -> None:
        """Read what was kept, then publish, listen and compare until cancelled."""
        try:
            await self.load()
            await asyncio.gather(self._store.run(), self._publishing(cards, price_usd_per_mtok), self._greeting())
        finally:
            self.close()

    async def load(self) -> None:
        """Read what was kept."""
        damage = await self._store.load()
        if damage:
            _log.warning("the swarm's store was damaged and is fetched again: %s", damage)

    def close(self) -> None:
        self._store.close()

    async def publish(self, cards: Sequence[ModelCard], price_usd_per_mtok: float) -> None:
        """Write down what this node serves now."""
        price = round(price_usd_per_mtok * MICROCENTS)
        offers = [
            ModelOffer(card.id, microcents_per_mtok=price, context_length=card.context_length or 0)
            for card in cards
            if len(card.id) <= MAX_MODEL
        ]
        try:
            await self._registry.publish(tuple(offers))
        except ShoalError as error:  # full, or waiting for a peer after damage: the next round may do better
            _log.info("what this node serves is not in the swarm's store yet: %s", error)

    async def greet(self) -> None:
        """Compare with every peer that is newly connected, rather than at the next round."""
        present = set(self._connected())
        fresh, self._greeted = present - self._greeted, present
        await asyncio.gather(*(self._meet(peer) for peer in fresh))

    async def _meet(self, peer: PeerId) -> None:
        """One slow peer must not keep the others waiting for long."""
        async with self._meeting:
            try:
                await asyncio.wait_for(self._store.synchronise(peer), MEETING_S)
            except (ShoalError, TimeoutError) as error:
                _log.info("%s was not compared with: %s", peer.short, error)

    async def _publishing(self, cards: Callable[[], Sequence[ModelCard]], price_usd_per_mtok: float) -> None:
        while True:
            await self.publish(cards(), price_usd_per_mtok)
            await self._clock.sleep(PUBLISH_S)

    async def _greeting(self) -> None:
        while True:
            await self.greet()
            await self._clock.sleep(GREET_S)
