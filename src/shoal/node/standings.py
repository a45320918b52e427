"""Audits of peers' answers as lines of the ledger: what was seen here, signed, for every peer that reads it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from shoal.core.errors import ShoalError
from shoal.crypto.hashes import blake3_digest
from shoal.mesh.peer_id import PeerId
from shoal.trust.check_audit import Record
from shoal.trust.reputation.ledger import Event, Ledger, Seen, fraud_of

_log = logging.getLogger(__name__)

MOST_WAITING = 1000


def event_of(record: Record) -> Event | None:
    """A check that passed speaks for the peer as an answerer, one that failed is fraud, an unsure one says nothing."""
    peer = PeerId.parse(record.peer)
    if record.verdict.outcome == "pass":
        return Seen(peer, "answering", 1.0)
    return fraud_of(
        peer, record.verdict, blake3_digest("shoal audit v1", f"{record.peer}/{record.request_id}".encode())
    )


@dataclass(slots=True)
class Keeping:
    """`told` takes records as they come, `run` writes them down until cancelled."""

    ledger: Ledger
    _waiting: asyncio.Queue[Record] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))

    def told(self, record: Record) -> None:
        try:
            self._waiting.put_nowait(record)
        except asyncio.QueueFull:  # passes are many and alike; a cheat is found again
            _log.info("an audit of %s is not written down: too many wait", record.peer[:10])

    async def run(self) -> None:
        while True:
            await self.keep(await self._waiting.get())

    async def keep(self, record: Record) -> None:
        try:
            if (event := event_of(record)) is not None:
                await self.ledger.record(event)
        except ShoalError as error:  # full, or waiting for a peer after damage
            _log.info("an audit of %s is not in the ledger: %s", record.peer[:10], error)
