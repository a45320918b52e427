"""The records a lookup has been shown: the newest of each author, every signature checked before it counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shoal.core.errors import PeerFault
from shoal.mesh.dht.record import Record, require_signature
from shoal.mesh.peer_id import PeerId

MAX_AUTHORS = 1024
"""Authors kept of one key; a lookup that meets more has enough."""


class Finding:
    """`wall` is now in wall seconds; `enough` peers that showed something end the lookup."""

    def __init__(self, key: bytes, wall: float, enough: int) -> None:
        self._key = key
        self._wall = wall
        self._enough = enough
        self._newest: dict[PeerId, Record] = {}
        self._showed: set[PeerId] = set()

    @property
    def is_enough(self) -> bool:
        return len(self._showed) >= self._enough

    def take(self, peer: PeerId, records: Sequence[Record]) -> bool:
        """False when what `peer` shows is not of this key or not signed: its contacts are worth no more."""
        try:
            fresh = [record for record in records if self._is_new(record)]
            for record in fresh:
                require_signature(record)
        except PeerFault:
            return False
        self._newest.update({record.author: record for record in fresh[:MAX_AUTHORS]})
        if any(record.is_current(self._wall) for record in records):
            self._showed.add(peer)
        return True

    def with_own(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """All, newest of each author, those held here included."""
        for record in records:
            if self._is_new(record):
                self._newest[record.author] = record
        return tuple(self._newest.values())

    def _is_new(self, record: Record) -> bool:
        if record.key != self._key:
            raise PeerFault("a record of another key was shown")
        known = self._newest.get(record.author)
        has_room = known is not None or len(self._newest) < MAX_AUTHORS
        return has_room and record.is_current(self._wall) and (known is None or record.sequence > known.sequence)
