"""What differs between two replicas, found with few and small messages: range-based set reconciliation (Meyer 2023,
arXiv 2212.13567) over one item for each author: how far its log goes, and from where on it is forked.

The asking side sends fingerprints of ranges of authors. The other side answers for each: the same, or the fingerprints
of `WAYS` smaller ranges, or, where few items are left, the items. n authors need about log(n)/log(WAYS) rounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from shoal.crypto.hashes import blake3_digest
from shoal.mesh.store.entry import NOTHING_BEFORE
from shoal.mesh.store.log import Log

WAYS = 16
FEW = 16
"""Items that are sent as they are instead of fingerprints (80 bytes each, a fingerprint with its end takes 48)."""
ITEM_BYTES = 80
PRINT_BYTES = 16
FIRST, LAST = bytes(32), b"\xff" * 32


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log goes. `fork` 0: none known."""

    author: bytes
    sequence: int
    hash: bytes
    fork: int

    def item(self) -> bytes:
        return self.author + self.sequence.to_bytes(8, "big") + self.hash + self.fork.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Range:
    """Authors from `low` to `high`, both included."""

    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Printed:
    range: Range
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Items:
    """All heads the answering side has in a range."""

    range: Range
    heads: tuple[Head, ...]


Finding = None | tuple[Printed, ...] | Items
"""The answer about one range: the same; smaller ranges; or everything."""


class Heads:
    """A snapshot of a replica's logs, in order of their authors."""

    def __init__(self, logs: dict[bytes, Log]) -> None:
        self._authors = sorted(logs)
        self.heads = [_head(logs[author]) for author in self._authors]
        self._data = memoryview(b"".join(head.item() for head in self.heads))

    def fingerprint(self, low: int, high: int) -> bytes:
        data = self._data[low * ITEM_BYTES : high * ITEM_BYTES]
        return blake3_digest("shoal store range v1", data)[:PRINT_BYTES]

    def all(self) -> Printed:
        return Printed(Range(FIRST, LAST), self.fingerprint(0, len(self._authors)))

    def within(self, wanted: Range) -> tuple[int, int]:
        return bisect_left(self._authors, wanted.low), bisect_right(self._authors, wanted.high)

    def differing(self, theirs: tuple[Printed, ...]) -> list[Printed]:
        """Those of the other side's ranges that are not the same here, as this side prints them."""
        own = [Printed(item.range, self.fingerprint(*self.within(item.range))) for item in theirs]
        return [item for item, other in zip(own, theirs, strict=True) if item != other]

    def answer(self, asked: Printed) -> Finding:
        """What the other side should know of a range."""
        low, high = self.within(asked.range)
        if self.fingerprint(low, high) == asked.fingerprint:
            return None
        if high - low <= FEW:
            return Items(asked.range, tuple(self.heads[low:high]))
        cuts = sorted({low + (high - low) * part // WAYS for part in range(1, WAYS)})
        ends = [*(_before(self._authors[cut]) for cut in cuts), asked.range.high]
        begins = [asked.range.low, *(self._authors[cut] for cut in cuts)]
        bounds = [low, *cuts, high]
        return tuple(
            Printed(Range(begin, end), self.fingerprint(first, last))
            for begin, end, first, last in zip(begins, ends, bounds, bounds[1:], strict=False)
        )

    def differences(self, items: Items) -> list[tuple[Head, Head]]:
        """(own, theirs) wherever they differ in a range; a log one side has not is empty there."""
        low, high = self.within(items.range)
        own = {head.author: head for head in self.heads[low:high]}
        theirs = {head.author: head for head in items.heads}
        pairs = [(own.get(author, _none(author)), theirs.get(author, _none(author))) for author in {**own, **theirs}]
        return [(here, there) for here, there in pairs if here != there]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What to ask for and what to give: sequences from which on, by author."""

    wanted: dict[bytes, int]
    offered: dict[bytes, int]


def exchange(pairs: list[tuple[Head, Head]]) -> Exchange:
    """Both sides have all the other has once this is done, or have found another fork and go on from there."""
    wanted, offered = dict[bytes, int](), dict[bytes, int]()
    for own, theirs in pairs:
        if own.sequence == theirs.sequence and own.hash != theirs.hash:
            wanted[own.author] = offered[own.author] = 1
            continue
        if theirs.sequence > own.sequence or _earlier(theirs.fork, own.fork):
            wanted[own.author] = own.sequence + 1
        if own.sequence > theirs.sequence or _earlier(own.fork, theirs.fork):
            offered[own.author] = theirs.sequence + 1
    return Exchange(wanted, offered)


def _earlier(one: int, other: int) -> bool:
    return one != 0 and (other == 0 or one < other)


def _head(log: Log) -> Head:
    return Head(log.author, log.head, log.head_hash, log.fork.sequence if log.fork else 0)


def _none(author: bytes) -> Head:
    return Head(author, 0, NOTHING_BEFORE, 0)


def _before(author: bytes) -> bytes:
    """The largest author smaller than this one (which is not the smallest of all: it has some before it)."""
    return (int.from_bytes(author, "big") - 1).to_bytes(32, "big")
