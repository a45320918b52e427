"""Records held for others, within bounds: pure, in memory, gone after a restart (their authors republish).

Rules that stay true in this file:
- a record replaces only an older one of the same key and author;
- no author holds more than `per_author`, no key more than `per_key`, all no more than `records` and `size_bytes`;
- when full, the record whose key is farthest from this peer goes if the new one is nearer; else that is refused.

What this does not protect against: a crowd that fills one key's `per_key` places before others come hides them here;
readers ask many peers and each answers with a random part of what it has.
"""

from __future__ import annotations

import bisect
import random
from collections import Counter
from dataclasses import dataclass

from shoal.mesh.dht.record import Record
from shoal.mesh.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class Bounds:
    records: int = 20_000
    size_bytes: int = 16 * 2**20
    per_author: int = 128
    per_key: int = 256


class Storage:
    """`own` is this peer's place; times are wall seconds."""

    def __init__(self, own: int, bounds: Bounds) -> None:
        self._own = own
        self._bounds = bounds
        self._records: dict[bytes, dict[PeerId, Record]] = {}
        self._authors: Counter[PeerId] = Counter()
        self._order: list[tuple[int, bytes, PeerId]] = []  # nearest key first
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def put(self, record: Record, wall: float) -> str:
        """Why it was refused, or "" when it is held. Its signature has been checked."""
        held = self._records.get(record.key, {})
        old = held.get(record.author)
        if not record.is_current(wall):
            return "expired, or made to live too long"
        if old is not None and old.sequence >= record.sequence:
            return "" if old == record else "not newer than what is held"
        if refusal := self._refusal(record, old, len(held)):
            return refusal
        if old is not None:
            self._remove(old)
        self._add(record)
        while len(self) > self._bounds.records or self.size_bytes > self._bounds.size_bytes:
            _, key, author = self._order[-1]
            self._remove(self._records[key][author])
        return ""

    def get(self, key: bytes, wall: float, limit: int, rng: random.Random) -> list[Record]:
        """Current records of a key; a random part of them when there are more than `limit`."""
        found = [record for record in self._records.get(key, {}).values() if record.is_current(wall)]
        return found if len(found) <= limit else rng.sample(found, limit)

    def expire(self, wall: float) -> int:
        """Drop what has expired; how many that were."""
        old = [record for held in self._records.values() for record in held.values() if not record.is_current(wall)]
        for record in old:
            self._remove(record)
        return len(old)

    def _refusal(self, record: Record, old: Record | None, num_held: int) -> str:
        if old is not None:
            return ""
        if self._authors[record.author] >= self._bounds.per_author:
            return f"its author has {self._bounds.per_author} records here"
        if num_held >= self._bounds.per_key:
            return f"the key has {self._bounds.per_key} authors here"
        size = self.size_bytes + record.size_bytes
        is_full = len(self) >= self._bounds.records or size > self._bounds.size_bytes
        if is_full and (not self._order or self._distance(record.key) >= self._order[-1][0]):
            return "full, and other keys are nearer"
        return ""

    def _add(self, record: Record) -> None:
        self._records.setdefault(record.key, {})[record.author] = record
        self._authors[record.author] += 1
        bisect.insort(self._order, (self._distance(record.key), record.key, record.author))
        self.size_bytes += record.size_bytes

    def _remove(self, record: Record) -> None:
        held = self._records[record.key]
        del held[record.author]
        if not held:
            del self._records[record.key]
        self._authors[record.author] -= 1
        if not self._authors[record.author]:
            del self._authors[record.author]
        at = (self._distance(record.key), record.key, record.author)
        del self._order[bisect.bisect_left(self._order, at)]
        self.size_bytes -= record.size_bytes

    def _distance(self, key: bytes) -> int:
        return int.from_bytes(key, "big") ^ self._own
