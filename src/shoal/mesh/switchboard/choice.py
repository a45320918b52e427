"""Which of several links to one peer is used.

Both sides rank by what both know alike, so that they settle on one link without a word: the path, the carrier, then
whose dial it was. Only the peer with the smaller id closes what is surplus, so that never both close each other's
choice; it may prefer another link where its measurements differ clearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.mesh.carrier import Link, LinkInfo
from shoal.mesh.peer_id import PeerId

PATHS = {"direct": 0, "punched": 1, "relayed": 2}
CARRIERS = {"memory": 0, "tcp": 0, "quic": 1}
"""Measured over loopback: TCP with TLS 1.2-1.5 GB/s, QUIC 0.06-0.09 GB/s."""
CLEARLY = 2.0
WORTH_S = 0.005


@dataclass(frozen=True, slots=True)
class Candidate:
    link: Link
    info: LinkInfo


def is_chooser(me: PeerId, other: PeerId) -> bool:
    """Whether this side closes surplus links."""
    return me < other


def best(candidates: Sequence[Candidate], me: PeerId) -> Candidate:
    """The link to use. At least one candidate."""
    ranked = sorted(candidates, key=lambda item: _rank(item, me))
    first = ranked[0]
    if not is_chooser(me, first.link.peer):
        return first
    alike = [item for item in ranked if (item.info.path == "relayed") == (first.info.path == "relayed")]
    return next((item for item in alike if _is_clearly_faster(item.info, first.info)), first)


def _rank(item: Candidate, me: PeerId) -> tuple[int, int, bool, float]:
    info = item.info
    dialer_is_smaller = info.is_dialer == (me < item.link.peer)
    return PATHS[info.path], CARRIERS.get(info.carrier, 1), not dialer_is_smaller, info.since


def _is_clearly_faster(one: LinkInfo, other: LinkInfo) -> bool:
    if one.rtt_s is None or other.rtt_s is None:
        return False
    return one.rtt_s * CLEARLY < other.rtt_s and other.rtt_s - one.rtt_s > WORTH_S
