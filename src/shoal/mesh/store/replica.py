"""All logs of a namespace and what they say: `receive`, `write`, `checkpoint` and reads. No I/O, no clock of its own.

Rules that stay true in this file:
- what is read follows from the logs held, never from the order in which entries came;
- an entry is refused for what it says or for lack of room, always with a reason; only "from the future" and "a gap"
  may be different later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shoal.core.errors import LocalError, PeerFault
from shoal.crypto.keys import PrivateKey
from shoal.mesh.store.entry import (
    MAX_CHECKPOINT,
    MAX_OPS,
    Checkpoint,
    Entry,
    Link,
    Operation,
    Present,
    Tag,
    require_signature,
    signed,
)  # fmt: skip
from shoal.mesh.store.grant import Grant, Namespace
from shoal.mesh.store.log import Fork, Log
from shoal.mesh.store.slot import Part, Slot, checkpoint_row, read_count, read_elements, read_value
from shoal.mesh.store.stamp import next_stamp, stamp_at, wall_s

TOMBSTONE_S = 7 * 86_400.0
"""A deletion is remembered at least this long; a writer cut off for longer may bring the key back."""


@dataclass(slots=True)
class Budget:
    """Memory, about, for the logs of all namespaces together; one for each replica, or shared between them."""

    total_bytes: int = 512 * 2**20
    used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """`skew_s`: how far into the future an entry may claim to be from. Sizes of logs in bytes of memory, about."""

    skew_s: float = 60.0
    author_bytes: int = 4 * 2**20
    namespace_bytes: int = 256 * 2**20
    num_authors: int = 20_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an entry was not taken; `is_fault`: whoever sent it should have known."""

    entry: Entry
    why: str
    is_fault: bool


@dataclass(slots=True)
class Received:
    accepted: list[Entry] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)

    @property
    def authors(self) -> set[bytes]:
        """Whose logs changed."""
        return {entry.link.author for entry in self.accepted} | {fork.author for fork in self.forks}


class Replica:
    def __init__(self, namespace: Namespace, limits: Limits = Limits(), budget: Budget | None = None) -> None:
        self.namespace = namespace
        self.logs: dict[bytes, Log] = {}
        self.version = 0  # grows with every change, for whoever caches what follows from the logs
        self._id = namespace.id
        self._limits = limits
        self._budget = budget if budget is not None else Budget()
        self._parts: dict[bytes, Part] = {}
        self._writers: dict[str, set[bytes]] = {}
        self._size_bytes = 0
        self._seen = 0

    # ---- reading --------------------------------------------------------------------------------------------

    def value(self, key: str) -> bytes | None:
        return read_value(self._slots(key))

    def elements(self, key: str) -> frozenset[bytes]:
        return frozenset(read_elements(self._slots(key)).values())

    def count(self, key: str) -> int:
        return read_count(self._slots(key))

    def names(self, prefix: str = "") -> Iterator[str]:
        """Keys somebody has said something about, deleted ones among them, in order."""
        return iter(sorted(key for key in self._writers if key.startswith(prefix)))

    def tags(self, key: str, element: bytes) -> tuple[Tag, ...]:
        """The additions that `Remove` must name to take an element out."""
        return tuple(tag for tag, held in read_elements(self._slots(key)).items() if held == element)

    # ---- writing --------------------------------------------------------------------------------------------

    def write(self, key: PrivateKey, operations: Sequence[Operation], now: float) -> Received:
        """Sign one entry of `operations` as the author's next. LocalError where every peer would refuse it."""
        if not 0 < len(operations) <= MAX_OPS:
            raise ValueError(f"expected 1 to {MAX_OPS} operations, found {len(operations)}")
        log = self.logs.get(key.public) or Log(key.public)
        stamp = next_stamp(max(self._seen, log.stamp), now)
        link = Link(self._id, key.public, log.head + 1, log.head_hash, stamp)
        received = self.receive([signed(link, operations, key)], now)
        if received.refused:
            raise LocalError(f"not written: {received.refused[0].why}")
        return received

    def checkpoint(self, key: PrivateKey, now: float) -> Received:
        """Put what still counts of the author's log in the place of the log."""
        part = self._parts.get(key.public) or Part(key.public, self.namespace.owner)
        known = {author: log.head for author, log in self.logs.items()}
        expires = stamp_at(max(0.0, now - TOMBSTONE_S))
        rows = []
        for name, own in sorted(part.slots.items()):
            others = [self._parts[author].slots[name] for author in self._writers.get(name, ()) if author != key.public]
            row = checkpoint_row(name, own, others, known, expires)
            rows += [row] if row is not None else []
        return self.write(key, [Checkpoint(tuple(rows), tuple(part.grants))], now)

    # ---- receiving ------------------------------------------------------------------------------------------

    def receive(
        self, entries: Iterable[Entry], now: float, forks: Iterable[Fork] = (), is_trusted: bool = False
    ) -> Received:
        """Take in entries in any order, though only those that follow on what is held are kept.

        `is_trusted` leaves out the checks of signatures and clocks: for what this replica wrote to disk itself, which
        it must know again even where its clock has been set back.
        """
        received = Received()
        for fork in forks:
            if fork.one.link.namespace == self._id:
                self._cut(fork, received)
        for entry in sorted(entries, key=lambda entry: (entry.link.author, entry.link.sequence)):
            try:
                refusal = self._take(entry, now, received, is_trusted)
            except PeerFault as error:
                received.refused.append(Refusal(entry, str(error), is_fault=True))
                continue
            if refusal:
                received.refused.append(Refusal(entry, refusal, is_fault=False))
        self.version += bool(received.accepted or received.forks)
        return received

    def _take(self, entry: Entry, now: float, received: Received, is_trusted: bool) -> str:
        """Why not, or nothing. PeerFault for what no honest peer sends on."""
        link = entry.link
        if link.namespace != self._id:
            raise PeerFault("expected an entry of this namespace")
        log = self.logs.get(link.author) or Log(link.author)
        held = log.at(link.sequence)
        if held is not None and held.hash == entry.hash:
            return ""
        if not is_trusted:
            require_signature(entry)
        if (fork := log.conflict(entry)) is not None:
            self._cut(fork, received)
            return "its author signed two histories"
        if log.fork is not None and link.sequence >= log.fork.sequence:
            return f"its author signed two histories from {log.fork.sequence} on"
        if link.sequence <= log.head:
            return "" if link.sequence < log.base else "older than what is held"
        if link.sequence != log.head + 1 and not entry.is_checkpoint:
            return f"a gap: {log.head} is the last of its author held here"
        if (late := wall_s(link.stamp) - now) > self._limits.skew_s and not is_trusted:
            return f"from the future: {late:.1f} s ahead of this clock, {self._limits.skew_s:g} s are taken"
        if link.stamp <= log.stamp:
            raise PeerFault("expected an entry stamped after the one before it")
        part = self._parts.get(link.author) or Part(link.author, self.namespace.owner)
        grants = part.check(entry)
        if full := self._lacks_room(entry, log):
            return full
        self._append(entry, log, part, grants)
        received.accepted.append(entry)
        return ""

    def _append(self, entry: Entry, log: Log, part: Part, grants: list[Grant]) -> None:
        before = log.size_bytes
        names = set(part.slots) if entry.is_checkpoint else set()
        log.append(entry)
        part.apply(entry, grants)
        self.logs[log.author], self._parts[log.author] = log, part
        self._grow(log.size_bytes - before)
        names |= set(part.slots) if entry.is_checkpoint else _names(entry)
        self._index(part, names)
        self._seen = max(self._seen, entry.link.stamp)

    def _lacks_room(self, entry: Entry, log: Log) -> str:
        size = entry.cost_bytes
        after = size if entry.is_checkpoint else log.size_bytes + size
        # a checkpoint may go over by its own size once, or a full log could never become smaller
        if after > self._limits.author_bytes + (MAX_CHECKPOINT if entry.is_checkpoint else 0):
            return f"its author's log is full ({self._limits.author_bytes} bytes): it needs a checkpoint"
        if full := self._is_full(after - log.size_bytes):
            return full
        if log.author not in self.logs and len(self.logs) >= self._limits.num_authors:
            return f"there are {len(self.logs)} authors already"
        return ""

    def _is_full(self, grown: int) -> str:
        if grown > 0 and self._size_bytes + grown > self._limits.namespace_bytes:
            return f"the namespace is full ({self._limits.namespace_bytes} bytes)"
        if grown > 0 and self._budget.used_bytes + grown > self._budget.total_bytes:
            return f"the store is full ({self._budget.total_bytes} bytes)"
        return ""

    def _cut(self, fork: Fork, received: Received) -> None:
        """Remember a fork, where there is room for its proof: two entries of any size the author liked."""
        if fork.author not in self.logs and len(self.logs) >= self._limits.num_authors:
            return
        whole = self.logs.get(fork.author) or Log(fork.author)
        log = whole.cut(fork)
        if not whole.is_news(fork) or self._is_full(log.size_bytes - whole.size_bytes):
            return
        self.logs[fork.author] = log
        self._grow(log.size_bytes - whole.size_bytes)
        old = self._parts.pop(fork.author, None) or Part(fork.author, self.namespace.owner)
        part = self._parts[fork.author] = Part(fork.author, self.namespace.owner)
        for entry in log.entries:
            part.apply(entry, part.check(entry))
        self._index(part, set(old.slots) | set(part.slots))
        received.accepted[:] = [entry for entry in received.accepted if _is_before(entry, fork)]
        received.forks.append(fork)

    def _grow(self, change: int) -> None:
        self._size_bytes += change
        self._budget.used_bytes += change

    def _index(self, part: Part, names: Iterable[str]) -> None:
        for name in names:
            if name in part.slots and not part.slots[name].is_empty:
                self._writers.setdefault(name, set()).add(part.author)
            elif name in self._writers:
                self._writers[name].discard(part.author)
                if not self._writers[name]:
                    del self._writers[name]

    def _slots(self, key: str) -> list[Slot]:
        return [self._parts[author].slots[key] for author in self._writers.get(key, ())]


def _names(entry: Entry) -> set[str]:
    return {operation.key for operation in entry.operations if not isinstance(operation, (Present, Checkpoint))}


def _is_before(entry: Entry, fork: Fork) -> bool:
    return entry.link.author != fork.author or entry.link.sequence < fork.sequence
