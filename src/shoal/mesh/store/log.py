"""One author's chain as far as it is known: from its first entry or from a checkpoint, without a gap, up to a fork.

A fork is two entries the author signed that cannot both be in one chain. It proves itself to anybody. From its sequence
on nothing of the author counts; of several forks the earliest counts, so that everybody ends with the same prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shoal.core.errors import PeerFault
from shoal.mesh import parse
from shoal.mesh.store.entry import NOTHING_BEFORE, Entry, parse_entry, require_signature


@dataclass(frozen=True, slots=True)
class Fork:
    """`one` and `other` by the same author: of the same sequence, or `other` next but not linked to `one`."""

    one: Entry
    other: Entry

    @property
    def author(self) -> bytes:
        return self.one.link.author

    @property
    def sequence(self) -> int:
        return self.other.link.sequence

    @property
    def cost_bytes(self) -> int:
        return self.one.cost_bytes + self.other.cost_bytes

    def row(self) -> list[Any]:
        return [self.one.row(), self.other.row()]


def parse_fork(value: Any) -> Fork:
    """A fork that proves itself, both signatures checked. PeerFault for anything else."""
    one, other = (parse_entry(row) for row in parse.row(value, 2))
    if not is_fork(one, other):
        raise PeerFault("expected two entries that cannot both be in one chain")
    require_signature(one)
    require_signature(other)
    return Fork(one, other)


def is_fork(one: Entry, other: Entry) -> bool:
    if (one.link.author, one.link.namespace) != (other.link.author, other.link.namespace):
        return False
    if one.link.sequence == other.link.sequence:
        return one.hash != other.hash
    return other.link.sequence == one.link.sequence + 1 and other.link.previous != one.hash


@dataclass(slots=True)
class Log:
    """`entries` follow each other; the first has sequence 1 or is a checkpoint. `size_bytes` of memory, about."""

    author: bytes
    entries: list[Entry] = field(default_factory=list)
    fork: Fork | None = None
    size_bytes: int = 0

    @property
    def base(self) -> int:
        """Sequence of the first entry held; 0 without any."""
        return self.entries[0].link.sequence if self.entries else 0

    @property
    def head(self) -> int:
        return self.entries[-1].link.sequence if self.entries else 0

    @property
    def head_hash(self) -> bytes:
        return self.entries[-1].hash if self.entries else NOTHING_BEFORE

    @property
    def stamp(self) -> int:
        return self.entries[-1].link.stamp if self.entries else -1

    def at(self, sequence: int) -> Entry | None:
        place = sequence - self.base
        return self.entries[place] if self.entries and 0 <= place < len(self.entries) else None

    def since(self, sequence: int) -> list[Entry]:
        """Entries from `sequence` on, or all of them where the log begins later."""
        return self.entries[max(0, sequence - self.base) :] if self.entries else []

    def conflict(self, entry: Entry) -> Fork | None:
        """The fork that `entry` proves together with one that is held."""
        sequence = entry.link.sequence
        for held, first in ((self.at(sequence), True), (self.at(sequence - 1), True), (self.at(sequence + 1), False)):
            if held is not None:
                one, other = (held, entry) if first else (entry, held)
                if is_fork(one, other):
                    return Fork(one, other)
        return None

    def append(self, entry: Entry) -> None:
        """The next entry, or a checkpoint that takes the place of all before it."""
        if entry.is_checkpoint:
            self.entries, self.size_bytes = [], self.fork.cost_bytes if self.fork else 0
        self.entries.append(entry)
        self.size_bytes += entry.cost_bytes

    def is_news(self, fork: Fork) -> bool:
        """Whether no fork is known, or a later one."""
        return self.fork is None or fork.sequence < self.fork.sequence

    def cut(self, fork: Fork) -> Log:
        """What is left of it: what is before the fork."""
        entries = [entry for entry in self.entries if entry.link.sequence < fork.sequence]
        return Log(self.author, entries, fork, sum(entry.cost_bytes for entry in entries) + fork.cost_bytes)
