"""What one author has said about each key, and how what all authors said is read as one value.

`Part` follows from one author's log alone; reading looks at the parts of all authors. Nothing else is kept, so replicas
with the same logs read the same, in whatever order the entries came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shoal.core.errors import PeerFault
from shoal.mesh.store.entry import Add, Checkpoint, Count, Entry, Present, Put, Remove, SlotRow, Tag
from shoal.mesh.store.grant import Grant, is_allowed, require_granted

MAX_TOTAL = 2**62

Order = tuple[int, bytes, int, int]
"""Stamp, author, sequence, place: no two puts have the same, and everybody orders them alike."""


@dataclass(slots=True)
class Slot:
    """One author's word on one key."""

    cell: tuple[Order, bytes | None] | None = None
    adds: dict[Tag, bytes] = field(default_factory=dict)
    removes: set[Tag] = field(default_factory=set)
    count: int = 0

    @property
    def is_empty(self) -> bool:
        return self.cell is None and not self.adds and not self.removes and not self.count


@dataclass(slots=True)
class Part:
    """All words of one author."""

    author: bytes
    owner: bytes | None
    slots: dict[str, Slot] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)

    def check(self, entry: Entry) -> list[Grant]:
        """PeerFault for an entry that its author may not write; the grants that count after it. Changes nothing."""
        grants = [] if entry.is_checkpoint else list(self.grants)
        for operation in entry.operations:
            match operation:
                case Present(grant):
                    require_granted(grant, self.owner)
                    grants.append(grant)
                case Checkpoint(slots, held):
                    for grant in held:
                        if grant not in self.grants:
                            require_granted(grant, self.owner)
                    grants.extend(held)
                    for slot in slots:
                        self._require(slot.key, slot.cell[0] if slot.cell else entry.link.stamp, grants)
                case Put(key) | Add(key) | Remove(key) | Count(key):
                    self._require(key, entry.link.stamp, grants)
        return grants[-64:]

    def apply(self, entry: Entry, grants: list[Grant]) -> None:
        """Take in an entry that `check` has seen."""
        self.grants = grants
        link = entry.link
        for place, operation in enumerate(entry.operations):
            match operation:
                case Put(key, value):
                    self._slot(key).cell = ((link.stamp, link.author, link.sequence, place), value)
                case Add(key, element):
                    self._slot(key).adds[(link.author, link.sequence, place)] = element
                case Remove(key, tags):
                    self._slot(key).removes.update(tags)
                case Count(key, change):
                    slot = self._slot(key)
                    slot.count = max(-MAX_TOTAL, min(MAX_TOTAL, slot.count + change))
                case Checkpoint(slots):
                    self.slots = {row.key: _slot(row, link.author) for row in slots}

    def _slot(self, key: str) -> Slot:
        if key not in self.slots:
            self.slots[key] = Slot()
        return self.slots[key]

    def _require(self, key: str, stamp: int, grants: list[Grant]) -> None:
        if not is_allowed(self.author, key, stamp, grants):
            raise PeerFault(f"expected a key under the author's own prefix or a grant for it, found {key[:80]!r}")


def read_value(slots: Iterable[Slot]) -> bytes | None:
    """The newest put of all authors."""
    newest = max((slot.cell for slot in slots if slot.cell is not None), key=lambda cell: cell[0], default=None)
    return None if newest is None else newest[1]


def read_elements(slots: Iterable[Slot]) -> dict[Tag, bytes]:
    """The additions that nobody removed."""
    present = list(slots)
    removed = set[Tag]().union(*(slot.removes for slot in present))
    return {tag: element for slot in present for tag, element in slot.adds.items() if tag not in removed}


def read_count(slots: Iterable[Slot]) -> int:
    return sum(slot.count for slot in slots)


def checkpoint_row(key: str, own: Slot, others: list[Slot], known: dict[bytes, int], expires: int) -> SlotRow | None:
    """What of an author's slot must stay in its checkpoint; None: nothing.

    A put that somebody's newer one covers goes. A deletion goes once it is older than `expires` (a stamp) and nobody
    else holds a put it covers. A removal goes once the addition is gone from its author's own log; `known` says how far
    each author's log is known.
    """
    slot = SlotRow(key, None, (), (), own.count)
    cells = [other.cell for other in others if other.cell is not None]
    if own.cell is not None and all(cell[0] < own.cell[0] for cell in cells):
        order, value = own.cell
        if value is not None or cells or order[0] >= expires:
            slot = SlotRow(key, (order[0], order[2], order[3], value), (), (), own.count)
    living = read_elements([own, *others])
    adds = tuple((tag[1], tag[2], element) for tag, element in sorted(own.adds.items()) if tag in living)
    held = set[Tag]().union(*(other.adds for other in others))
    removes = tuple(sorted(tag for tag in own.removes if tag in held or tag[1] > known.get(tag[0], 0)))
    row = SlotRow(key, slot.cell, adds, removes, own.count)
    return None if row.cell is None and not adds and not removes and not row.count else row


def _slot(row: SlotRow, author: bytes) -> Slot:
    cell = None
    if row.cell is not None:
        stamp, sequence, place, value = row.cell
        cell = ((stamp, author, sequence, place), value)
    adds = {(author, sequence, place): element for sequence, place, element in row.adds}
    return Slot(cell, adds, set(row.removes), row.count)
