"""What other peers offer, kept fresh: the part of a `Directory` that is made of peers.

a peer appears, or its load record names other models --> ask it "fleet.models" --> its offer
offer + load from gossip + RTT of the link --> `Provider`
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import ShoalError
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.fleet.accounts import Accounts
from shoal.fleet.provider import Load, Provider
from shoal.fleet.remote import RemoteEngine
from shoal.fleet.sharing import Offer, read_offer
from shoal.fleet.wire import MODELS
from shoal.mesh.calls import Caller, CallOptions
from shoal.mesh.peer_id import PeerId

_log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 10.0
REFRESH_S = 60.0
"""An offer is asked for again so often, because speeds and prices change without a sign."""
RETRY_S = 1.0
"""After a question without an answer; doubles to REFRESH_S."""
UNLINKED_S = 0.25
"""Round trip assumed of a peer without a link: it has to be connected to first."""
MAX_MET = 8
"""Peers asked at once for a model that no neighbour serves."""
MAX_NEIGHBOURS = 256
"""Peers whose offers are kept; a router needs good providers, not all of them."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What membership says of a peer now, and the links.

    models         a hash that changes when what it serves does.
    is_lost        it had a link and has none.
    tells_its_end  its link is one that ends at once when the process at the other end does.
    """

    peer: PeerId
    running: int = 0
    waiting: int = 0
    models: bytes = b""
    is_lost: bool = False
    tells_its_end: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """An offer, the hash it belongs to, when it was asked for (monotonic seconds), and how often in vain since."""

    offer: Offer
    models: bytes
    asked_at: float
    failures: int = 0


@dataclass(slots=True)
class Neighbours:
    """`seen` gives the peers that are there now; `rtts_s` the round trips of those with a link."""

    caller: Caller
    clock: Clock
    accounts: Accounts
    seen: Callable[[], Sequence[Sighting]]
    rtts_s: Callable[[], Mapping[PeerId, float]]
    known: dict[PeerId, Known] = field(default_factory=dict)
    _asking: dict[PeerId, asyncio.Task[None]] = field(default_factory=dict)
    _met: dict[PeerId, float] = field(default_factory=dict)
    _ours: Counter[PeerId] = field(default_factory=Counter)

    def providers(self) -> list[Provider]:
        sightings, rtts_s = self._sightings(), self.rtts_s()
        return [
            self._provider(peer, known.offer, sightings[peer], rtts_s.get(peer, UNLINKED_S))
            for peer, known in self.known.items()
            if peer in sightings and known.offer.cards
        ]

    async def meet(self, peers: Sequence[PeerId], model: str) -> bool:
        """Ask peers that are said to serve `model`, members or not; whether one of them does."""
        asked = [self._ask(Sighting(peer)) for peer in peers[:MAX_MET] if peer not in self.known]
        await asyncio.gather(*asked)
        self._met.update(dict.fromkeys(peers[:MAX_MET], self.clock.monotonic()))
        return any(model in provider.models for provider in self.providers())

    async def run(self, period_s: float = 1.0) -> None:
        """Until cancelled: ask newcomers, and again whom something changed at; forget who left."""
        try:
            while True:
                self.look()
                await self.clock.sleep(period_s)
        finally:
            tasks = list(self._asking.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Begin to ask whoever is due."""
        now = self.clock.monotonic()
        sightings = self._sightings()
        for peer in [peer for peer in self.known if peer not in sightings]:
            del self.known[peer]
        for sighting in sightings.values():
            if self._is_due(sighting, now) and len(self.known) + len(self._asking) < MAX_NEIGHBOURS:
                self._asking[sighting.peer] = asyncio.create_task(self._ask(sighting))

    def _sightings(self) -> dict[PeerId, Sighting]:
        """Members, and for a while those that were found in another way."""
        now = self.clock.monotonic()
        self._met = {peer: since for peer, since in self._met.items() if now - since < REFRESH_S}
        found = {peer: Sighting(peer) for peer in self._met}
        return found | {sighting.peer: sighting for sighting in self.seen()}

    def _is_due(self, sighting: Sighting, now: float) -> bool:
        if sighting.peer in self._asking:
            return False
        known = self.known.get(sighting.peer)
        if known is None or known.models != sighting.models:
            return True
        pause = min(REFRESH_S, RETRY_S * 2 ** (known.failures - 1)) if known.failures else REFRESH_S
        return now - known.asked_at >= pause

    async def _ask(self, sighting: Sighting) -> None:
        peer, old = sighting.peer, self.known.get(sighting.peer)
        offer, failures = Offer(), 0
        try:
            offer = read_offer(await self.caller.call(peer, MODELS, b"", CallOptions(ASK_TIMEOUT_S)))
        except ShoalError as error:
            _log.debug("%s says not what it serves: %s", peer.short, error)
            failures = min(10, old.failures + 1 if old else 1)
            if old is not None and old.models == sighting.models:
                offer = old.offer
        finally:
            self._asking.pop(peer, None)
        self.known[peer] = Known(offer, sighting.models, self.clock.monotonic(), failures)

    def _provider(self, peer: PeerId, offer: Offer, sighting: Sighting, rtt_s: float) -> Provider:
        remote = RemoteEngine(peer, self.caller, self.clock, sighting.tells_its_end)
        running = max(sighting.running, self._ours[peer])  # what this node asked just now nobody has told yet
        load = Load(running, sighting.waiting, offer.seats, offer.prefill_tps, offer.stream_tps, offer.total_tps)
        generate = self._credited(peer, remote.generate)
        price = offer.price_usd_per_mtok
        return Provider(str(peer), "peer", generate, offer.cards, load, rtt_s, price, is_lost=sighting.is_lost)

    def _credited(self, peer: PeerId, generate: Generate) -> Generate:
        """The same answers, counted while they run; their tokens are written to the peer's credit."""

        async def counted(request: Request) -> AsyncIterator[Chunk]:
            num_tokens = 0
            self._ours[peer] += 1
            try:
                async with closing(generate(request)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        num_tokens += len(chunk.token_ids)  # now: whoever took it has found it believable
            finally:
                self._ours[peer] -= 1
                self._ours += Counter()  # without those at zero
                self.accounts.credit(peer, num_tokens, self.clock.monotonic())

        return counted
