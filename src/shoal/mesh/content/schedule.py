"""Who is asked for which piece next: plain decisions on plain data, no I/O.

Rarest first, so that a piece only one peer has is not lost with it; better peers are asked more at once; a piece that
fails goes to another peer; who sends a wrong piece is asked no more. When nothing is left to ask for, the oldest piece
on its way is asked of a second peer, so that one slow peer does not hold up the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from shoal.mesh.content.score import Score
from shoal.mesh.peer_id import PeerId

MAX_AT_ONCE = 6
MAX_IN_FLIGHT = 48
MAX_LOSSES = 5
"""In a row, and a peer is asked no more."""
TWICE_AFTER_S = 1.0
LOOKED_AT = 1024
"""Pieces among which the rarest are taken, so that a choice costs the same in a blob of 100 GB."""


@dataclass(frozen=True, slots=True)
class Ask:
    peer: PeerId
    piece: int


@dataclass(slots=True)
class Source:
    """One peer's part. `wanted`: the missing pieces it has; `asked`: pieces on their way and since when."""

    wanted: set[int]
    score: Score = field(default_factory=Score)
    asked: dict[int, float] = field(default_factory=dict)
    losses: int = 0
    not_before: float = 0.0


class Schedule:
    def __init__(self, missing: Iterable[int], seed: int | None = None) -> None:
        self.missing = set(missing)
        self.sources: dict[PeerId, Source] = {}
        self.blamed: dict[PeerId, str] = {}
        self._holders: dict[int, int] = {}
        self._random = random.Random(seed)  # noqa: S311  equally rare pieces, not a secret
        self._rank = {piece: self._random.random() for piece in self.missing}

    # ---- what happened --------------------------------------------------------------------------------------

    def joined(self, peer: PeerId, has: Iterable[int]) -> None:
        """A peer, or what it has now."""
        if peer in self.blamed:
            return
        source = self.sources.setdefault(peer, Source(set()))
        for piece in (set(has) & self.missing) - source.wanted:
            source.wanted.add(piece)
            self._holders[piece] = self._holders.get(piece, 0) + 1

    def arrived(self, peer: PeerId, piece: int, size_bytes: int, now: float) -> None:
        """A right piece."""
        self.missing.discard(piece)
        for other in self.sources.values():
            other.wanted.discard(piece)
        if (source := self.sources.get(peer)) is not None:
            source.score.won(size_bytes, now - source.asked.pop(piece, now), now)
            source.losses = 0

    def failed(self, peer: PeerId, piece: int, now: float, wait_s: float = 0.0) -> None:
        """No answer, or not now."""
        if (source := self.sources.get(peer)) is not None:
            source.asked.pop(piece, None)
            source.score.lost(now)
            source.losses += 1
            source.not_before = now + max(wait_s, 0.05 * 2**source.losses)
            if source.losses >= MAX_LOSSES:
                self.left(peer)

    def lied(self, peer: PeerId, why: str) -> None:
        self.blamed[peer] = why
        self.left(peer)

    def left(self, peer: PeerId) -> None:
        source = self.sources.pop(peer, None)
        for piece in source.wanted if source is not None else ():
            self._holders[piece] -= 1

    # ---- what next ------------------------------------------------------------------------------------------

    def next(self, now: float) -> list[Ask]:
        """Calls to make now; they count as made."""
        asks = list[Ask]()
        in_flight = sum(len(source.asked) for source in self.sources.values())
        for peer, source in sorted(self.sources.items(), key=lambda item: -item[1].score.value(now)):
            room = min(self._slots(source, now) - len(source.asked), MAX_IN_FLIGHT - in_flight - len(asks))
            for piece in self._choose(source, room, now):
                source.asked[piece] = now
                asks.append(Ask(peer, piece))
        return asks

    def wait_s(self, now: float) -> float | None:
        """Until `next` may say more without anything having happened; None: never."""
        times = [source.not_before - now for source in self.sources.values() if source.not_before > now]
        if self._on_the_way():
            times.append(TWICE_AFTER_S)
        return min(times, default=None)

    @property
    def is_stuck(self) -> bool:
        """Nobody left has a piece that is missing."""
        return bool(self.missing) and not any(source.wanted for source in self.sources.values())

    def _slots(self, source: Source, now: float) -> int:
        if source.not_before > now:
            return 0
        return 1 if source.losses else 1 + round((MAX_AT_ONCE - 1) * source.score.value(now) / 100)

    def _choose(self, source: Source, room: int, now: float) -> list[int]:
        if room <= 0:
            return []
        on_the_way = self._on_the_way()
        free = list(islice((piece for piece in source.wanted if piece not in on_the_way), LOOKED_AT))
        if free:
            return sorted(free, key=lambda piece: (self._holders[piece], self._rank[piece]))[:room]
        late = [
            piece
            for piece, (since, askers) in on_the_way.items()
            if askers == 1 and piece in source.wanted and piece not in source.asked and now - since >= TWICE_AFTER_S
        ]
        return sorted(late, key=lambda piece: on_the_way[piece])[:1]

    def _on_the_way(self) -> dict[int, tuple[float, int]]:
        """Missing pieces asked for: since when, and of how many."""
        found = dict[int, tuple[float, int]]()
        for source in self.sources.values():
            for piece, since in source.asked.items():
                if piece in self.missing:
                    first, askers = found.get(piece, (since, 0))
                    found[piece] = (min(first, since), askers + 1)
        return found
