"""Claims on their way: each is sent a few times, fewest first, then forgotten. Bounded, newest about a peer wins."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from shoal.mesh.gossip.claims import Accusation, Claim
from shoal.mesh.gossip.roster import RINGS
from shoal.mesh.peer_id import PeerId

CAPACITY = 4096

SENDS = RINGS + 2
"""How often one peer sends one claim: once to each neighbour, and two that go along with probes.

Five were too few: with eight neighbours each, one peer of fifteen missed a goodbye in some runs.
"""


@dataclass(slots=True)
class _Letter:
    claim: Claim
    is_urgent: bool
    order: int
    sent: int = 0


class Outbox:
    def __init__(self) -> None:
        self._letters: dict[tuple[PeerId, PeerId | None], _Letter] = {}
        self._order = 0
        self._num_urgent = 0

    def __len__(self) -> int:
        return len(self._letters)

    @property
    def has_urgent(self) -> bool:
        return self._num_urgent > 0

    def put(self, claim: Claim, is_urgent: bool) -> None:
        """One more claim to send; it replaces an older one of the same author about the same peer."""
        subject = (claim.peer, claim.accuser if isinstance(claim, Accusation) else None)
        self._order += 1
        self._remove(subject)
        self._letters[subject] = _Letter(claim, is_urgent, self._order)
        self._num_urgent += is_urgent
        if len(self._letters) > CAPACITY:
            self._remove(max(self._letters, key=lambda other: self._rank(self._letters[other])))

    def take(self, limit: int, sends: int = SENDS) -> list[Claim]:
        """Up to `limit` claims for one message: urgent before others, fewest sent first, newest first."""
        if not self._letters:
            return []
        chosen = heapq.nsmallest(limit, self._letters, key=lambda subject: self._rank(self._letters[subject]))
        claims = []
        for subject in chosen:
            letter = self._letters[subject]
            letter.sent += 1
            claims.append(letter.claim)
            if letter.sent >= sends:
                self._remove(subject)
        return claims

    def _rank(self, letter: _Letter) -> tuple[bool, int, int]:
        return (not letter.is_urgent, letter.sent, -letter.order)

    def _remove(self, subject: tuple[PeerId, PeerId | None]) -> None:
        letter = self._letters.pop(subject, None)
        if letter is not None:
            self._num_urgent -= letter.is_urgent
