"""Who serves which model at which price: the first thing peers hold in common. Each peer writes its own lines.

What this does not protect against: a peer may offer what it has not; who pays attention to prices checks the answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.encoding import encode
from shoal.core.errors import RemoteError
from shoal.mesh import parse
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store.entry import Operation, Put
from shoal.mesh.store.grant import own_prefix
from shoal.mesh.store.store import Store

MAX_MODEL = 100
MODELS = "models/"


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model one peer serves. `digest`: of its weights, or empty; `microcents_per_mtok`: price of a million tokens."""

    model: str
    digest: bytes = b""
    microcents_per_mtok: int = 0
    context_length: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    peer: PeerId
    offer: ModelOffer


class Registry:
    """A typed view of a `Store`."""

    def __init__(self, store: Store, me: PeerId) -> None:
        self._store = store
        self._mine = own_prefix(me.key) + MODELS

    async def publish(self, offers: tuple[ModelOffer, ...]) -> None:
        """Say what this peer serves now; what it said before and is not in `offers` goes. Nothing new: nothing sent."""
        wanted = {self._mine + offer.model: _row(offer) for offer in offers}
        replica = self._store.replica
        changes: list[Operation] = [Put(key, row) for key, row in wanted.items() if replica.value(key) != row]
        known = replica.names(self._mine)
        changes += [Put(key, None) for key in known if key not in wanted and replica.value(key) is not None]
        for first in range(0, len(changes), 100):
            await self._store.write(*changes[first : first + 100])

    def listings(self, model: str | None = None) -> list[Listing]:
        """What all peers say, cheapest first; lines that are no offers are left out."""
        found = []
        for key in self._store.replica.names():
            value = self._store.replica.value(key)
            listing = None if value is None else _listing(key, value)
            if listing is not None and model in (None, listing.offer.model):
                found.append(listing)
        return sorted(found, key=lambda listing: (listing.offer.microcents_per_mtok, listing.peer))


def _row(offer: ModelOffer) -> bytes:
    return encode([offer.digest, offer.microcents_per_mtok, offer.context_length])


def _listing(key: str, value: bytes) -> Listing | None:
    peer, _, rest = key.partition("/")
    if not rest.startswith(MODELS):
        return None
    try:
        digest, price, context = parse.row(parse.message(value, 1024), 3)
        model = parse.text(rest.removeprefix(MODELS), MAX_MODEL)
        offer = ModelOffer(model, parse.octets(digest, 64), parse.integer(price), parse.integer(context))
        return Listing(PeerId.parse(peer), offer)
    except RemoteError:  # a key that names no peer, a value that is no offer
        return None
