"""Which peers' stages, one behind the other, are the layers that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.core.errors import Unreachable
from shoal.mesh.peer_id import PeerId
from shoal.parallel.frames import StageInfo


@dataclass(frozen=True, slots=True)
class Offer:
    peer: PeerId
    info: StageInfo


def choose_chain(offers: Sequence[Offer], digest: bytes, first: int, last: int) -> tuple[Offer, ...]:
    """The fewest stages of this model from layer `first` to `last` without gap or overlap; earlier offers first.

    Unreachable, with what there is, where they do not meet.
    """
    known = [offer for offer in offers if offer.info.digest == digest]
    best: dict[int, tuple[Offer, ...]] = {first: ()}
    for _ in range(last - first):
        for offer in known:
            info = offer.info
            if info.first in best and info.last > info.first and info.last <= last:
                chain = (*best[info.first], offer)
                if info.last not in best or len(chain) < len(best[info.last]):
                    best[info.last] = chain
    if last not in best:
        raise Unreachable(
            f"no peers' stages make layers {first} to {last}", tuple(map(_said, offers)) or ("no offers",)
        )
    return best[last]


def _said(offer: Offer) -> str:
    info = offer.info
    return f"{offer.peer.short} has layers {info.first} to {info.last} of {info.model} ({info.digest.hex()[:8]})"
