"""The routing table: for each distance at most `k` peers, the longest known first (Maymounkov and Mazières 2002).

Bucket i holds peers that share exactly i leading bits with this one. Rules that stay true in this file:
- a peer enters only after it answered us or proved itself by calling us; what others tell is no reason;
- a live peer is never pushed out by a new one: a full bucket first asks for a ping of its quietest peer, and newcomers
  wait in a queue of `k`, so that a crowd that comes late does not replace those who were there;
- no more than `per_subnet` peers of one public network are in a bucket, no more than `per_table` in the table.

What this does not protect against: addresses are claims. A crowd behind one relay, or one that claims addresses it does
not answer at, passes the limit of subnets; half a bucket at most can be relayed peers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from shoal.mesh.dht.contact import BITS, RELAYED, Contact, subnets

FAILURES = 2
"""Calls in a row without an answer after which a peer is forgotten. One would forget 10 % at 5 % loss each way."""

QUIET_S = 120.0
"""A peer heard within this time is not pinged before it keeps its place."""


@dataclass(frozen=True, slots=True)
class Limits:
    """k  peers of a bucket, and copies of a record."""

    k: int = 20
    per_subnet: int = 2
    per_table: int = 10


@dataclass(slots=True)
class _Entry:
    contact: Contact
    subnets: frozenset[str]
    seen: float
    failures: int = 0
    is_asked: bool = False


@dataclass(slots=True)
class _Bucket:
    entries: list[_Entry] = field(default_factory=list)  # quietest first
    waiting: list[Contact] = field(default_factory=list)  # newest last
    touched: float = 0.0


class Table:
    """`own` is this peer's place. Times are monotonic seconds."""

    def __init__(self, own: int, limits: Limits) -> None:
        self._own = own
        self._limits = limits
        self._buckets: dict[int, _Bucket] = {}
        self._subnets: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(len(bucket.entries) for bucket in self._buckets.values())

    def __iter__(self) -> Iterator[Contact]:
        for bucket in self._buckets.values():
            for entry in bucket.entries:
                yield entry.contact

    def saw(self, contact: Contact, now: float) -> Contact | None:
        """A peer is alive. The answer is one to ping before it may lose its place to this one, or None."""
        if contact.place == self._own:
            return None
        bucket = self._buckets.setdefault(self._index(contact.place), _Bucket(touched=now))
        known = _find(bucket, contact.place)
        if known is not None:
            self._again(bucket, known, contact, now)
            return None
        if len(bucket.entries) < self._limits.k:
            self._enter(bucket, contact, now)
            return None
        return self._wait(bucket, contact, now)

    def failed(self, contact: Contact) -> None:
        """A call to it had no answer."""
        bucket = self._buckets.get(self._index(contact.place)) if contact.place != self._own else None
        entry = _find(bucket, contact.place) if bucket else None
        if bucket is None or entry is None:
            return
        entry.failures += 1
        entry.is_asked = False
        if entry.failures >= FAILURES:
            self._leave(bucket, entry)

    def closest(self, target: int, count: int) -> list[Contact]:
        """Up to `count` peers, nearest to `target` first."""
        found: list[Contact] = []
        for group in self._groups(target):
            found += sorted(group, key=lambda contact: contact.place ^ target)
            if len(found) >= count:
                break
        return found[:count]

    def looked(self, target: int, now: float) -> None:
        """A lookup near `target` was made: its bucket needs no refresh for a while."""
        if target != self._own and (bucket := self._buckets.get(self._index(target))):
            bucket.touched = now

    def stale(self, now: float, after_s: float) -> list[int]:
        """Places (one in each bucket not looked into for `after_s`) to look up. The caller adds the random bits."""
        old = [index for index, bucket in self._buckets.items() if now - bucket.touched >= after_s]
        return [(self._own ^ (1 << (BITS - 1 - index))) >> (BITS - 1 - index) << (BITS - 1 - index) for index in old]

    def _groups(self, target: int) -> Iterator[list[Contact]]:
        """Peers in groups, every one of a group nearer to the target than any of the next."""
        shared = BITS if target == self._own else self._index(target)
        yield self._contacts(shared)
        yield [contact for index in self._buckets if index > shared for contact in self._contacts(index)]
        for index in sorted((index for index in self._buckets if index < shared), reverse=True):
            yield self._contacts(index)

    def _contacts(self, index: int) -> list[Contact]:
        bucket = self._buckets.get(index)
        return [entry.contact for entry in bucket.entries] if bucket else []

    def _index(self, place: int) -> int:
        return BITS - (place ^ self._own).bit_length()

    def _again(self, bucket: _Bucket, entry: _Entry, contact: Contact, now: float) -> None:
        if contact.address != entry.contact.address and self._has_room(
            bucket, fresh := subnets(contact.address), entry
        ):
            self._subnets.subtract(entry.subnets)
            self._subnets.update(fresh)
            entry.contact, entry.subnets = contact, fresh
        entry.seen, entry.failures, entry.is_asked = now, 0, False
        bucket.entries.remove(entry)
        bucket.entries.append(entry)

    def _enter(self, bucket: _Bucket, contact: Contact, now: float) -> bool:
        networks = subnets(contact.address)
        if not self._has_room(bucket, networks, None):
            return False
        self._subnets.update(networks)
        bucket.entries.append(_Entry(contact, networks, now))
        return True

    def _wait(self, bucket: _Bucket, contact: Contact, now: float) -> Contact | None:
        bucket.waiting = [other for other in bucket.waiting if other.place != contact.place][1 - self._limits.k :]
        bucket.waiting.append(contact)
        quietest = bucket.entries[0]
        if quietest.is_asked or now - quietest.seen < QUIET_S:
            return None
        quietest.is_asked = True
        return quietest.contact

    def _leave(self, bucket: _Bucket, entry: _Entry) -> None:
        bucket.entries.remove(entry)
        self._subnets.subtract(entry.subnets)
        while bucket.waiting and not self._enter(bucket, bucket.waiting.pop(), entry.seen):
            pass

    def _has_room(self, bucket: _Bucket, networks: frozenset[str], instead: _Entry | None) -> bool:
        others = [entry for entry in bucket.entries if entry is not instead]
        for network in networks:
            here = sum(network in entry.subnets for entry in others)
            everywhere = self._subnets[network] - (instead is not None and network in instead.subnets)
            if network == RELAYED:
                if here >= max(1, self._limits.k // 2):
                    return False
            elif here >= self._limits.per_subnet or everywhere >= self._limits.per_table:
                return False
        return True


def _find(bucket: _Bucket, place: int) -> _Entry | None:
    return next((entry for entry in bucket.entries if entry.contact.place == place), None)
