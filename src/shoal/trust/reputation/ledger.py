"""The ledger: what each peer saw of each other, in its own signed chain; read by one's own trust in the writers.

Every author keeps, under its own prefix, one line for each subject: its `Standing` in its eyes. `mesh.store` chains,
signs and replicates the lines, and shows whoever signs two histories. Reading weighs authors: one's own line counts
fully, another's as much as its author weighs as a judge in one's own line, what a peer says of itself not at all. So a
flood of new names that praise each other weighs nothing, and no author alone can convict: fraud counts where it was
seen here, or by authors of more weight than `CONVICTS` together.

What this does not protect against: peers of good standing that lie together about somebody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from shoal.core.encoding import encode
from shoal.core.errors import RemoteError
from shoal.crypto.keys import PrivateKey
from shoal.crypto.merkle import Tree, digests, leaf_digest
from shoal.mesh import parse
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import Replica, own_prefix
from shoal.mesh.store.entry import Operation, Put
from shoal.trust.reputation.standing import Kind, Standing, seen, slashed, weight
from shoal.trust.verdict import Verdict

LINES, PLEDGE = "reputation/", "stake"
CONVICTS = 1.0
MOST_COUNTED = 50
"""Observations of one author that count at most."""
MAX_COUNT = 2**40


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation of `subject`: how right it was, 0 to 1."""

    subject: PeerId
    kind: Kind
    accuracy: float


@dataclass(frozen=True, slots=True)
class Examined:
    subject: PeerId
    has_passed: bool


@dataclass(frozen=True, slots=True)
class Fraud:
    """`evidence`: digest of the receipt whose check failed."""

    subject: PeerId
    evidence: bytes


Event = Seen | Examined | Fraud


class Ledger(Protocol):
    """Any ledger of standings, this one or one on a chain."""

    async def record(self, event: Event) -> None:
        """What this node saw. Evidence counts once."""
        ...

    async def pledge(self, units: int) -> None:
        """This node's own stake, 0 or more."""
        ...

    def standing(self, subject: PeerId) -> Standing:
        """As this node reads it; `Standing()` for the unknown."""
        ...

    def root(self) -> bytes:
        """Of a Merkle tree over all standings: equal for two readers with one opinion."""
        ...


def fraud_of(subject: PeerId, verdict: Verdict, receipt_digest: bytes) -> Fraud | None:
    """Proven fraud: a check that failed. Unsure proves nothing."""
    return Fraud(subject, receipt_digest) if verdict.outcome == "fail" else None


@dataclass(slots=True)
class StoreLedger:
    """Over a replica of `mesh.store`. `write` signs and keeps operations: `Store.write`, or `alone` without a mesh."""

    me: PeerId
    replica: Replica
    write: Callable[..., Awaitable[object]]

    async def record(self, event: Event) -> None:
        before, evidence = self._line(self.me, event.subject)
        match event:
            case Seen(_, kind, accuracy):
                after = seen(before, kind, accuracy)
            case Examined(_, has_passed):
                after = replace(before, is_admitted=has_passed)
            case Fraud(_, digest):
                if digest in evidence:
                    return
                after, evidence = slashed(before), (*evidence, digest)[-8:]
        await self.write(Put(self._key(self.me, event.subject), _row(after, evidence)))

    async def pledge(self, units: int) -> None:
        if units < 0:
            raise ValueError(f"expected a stake of 0 or more, found {units}")
        await self.write(Put(own_prefix(self.me.key) + PLEDGE, encode(units)))

    def standing(self, subject: PeerId) -> Standing:
        own, _ = self._line(self.me, subject)
        told = [(weight(self._line(self.me, author)[0]), line) for author, line in self._told(subject)]
        trusted = [(trust, line) for trust, line in told if trust > 0]
        frauds = own.frauds + (sum(trust for trust, line in trusted if line.frauds) > CONVICTS)
        if frauds:
            return Standing(frauds=frauds)
        lines = [(1.0, own), *trusted]
        judging, num_judging = _mean([(t, line.judging, line.num_judging) for t, line in lines])
        answering, num_answering = _mean([(t, line.answering, line.num_answering) for t, line in lines])
        for_ = sum(trust for trust, line in trusted if line.is_admitted)
        is_admitted = own.is_admitted or 2 * for_ > max(CONVICTS, sum(trust for trust, _ in trusted))
        stake = self._pledged(subject)
        return Standing(judging, answering, num_judging, num_answering, is_admitted, stake)

    def subjects(self) -> list[PeerId]:
        return sorted({subject for _, subject in self._keys()})

    def root(self) -> bytes:
        """BLAKE3 Merkle root over (peer, standing), in order of peers, filled up with empty leaves."""
        leaves = [encode([peer.key, _row(self.standing(peer), ())]) for peer in self.subjects()]
        leaves += [b""] * ((1 << max(0, len(leaves) - 1).bit_length()) - len(leaves))
        return Tree.of(digests(leaf_digest(leaf) for leaf in leaves)).root

    def _told(self, subject: PeerId) -> Iterator[tuple[PeerId, Standing]]:
        for author, about in self._keys():
            if about == subject and author not in (self.me, subject):
                yield author, self._line(author, subject)[0]

    def _keys(self) -> Iterator[tuple[PeerId, PeerId]]:
        for name in self.replica.names():
            author, _, rest = name.partition("/")
            if rest.startswith(LINES):
                try:
                    yield PeerId.parse(author), PeerId.parse(rest.removeprefix(LINES))
                except RemoteError:  # somebody's key that names no peer
                    continue

    def _line(self, author: PeerId, subject: PeerId) -> tuple[Standing, tuple[bytes, ...]]:
        value = self.replica.value(self._key(author, subject))
        try:
            return (Standing(), ()) if value is None else _parsed(value)
        except RemoteError:  # a line that says nothing readable says nothing
            return Standing(), ()

    def _pledged(self, subject: PeerId) -> int:
        value = self.replica.value(own_prefix(subject.key) + PLEDGE)
        try:
            return 0 if value is None else parse.integer(parse.message(value, 64), 0, MAX_COUNT)
        except RemoteError:
            return 0

    @staticmethod
    def _key(author: PeerId, subject: PeerId) -> str:
        return f"{own_prefix(author.key)}{LINES}{subject}"


def _mean(lines: list[tuple[float, float, int]]) -> tuple[float, int]:
    """(trust, R, observations) -> R by trust and observations, and how many observations that is."""
    shares = [(trust * min(count, MOST_COUNTED), value) for trust, value, count in lines]
    total = sum(share for share, _ in shares)
    return (sum(share * value for share, value in shares) / total if total else 0.0), round(total)


_SCALE = 10**6
"""Reputations travel as whole millionths: every reader computes with the same numbers."""


def _row(line: Standing, evidence: tuple[bytes, ...]) -> bytes:
    rates = [round(line.judging * _SCALE), round(line.answering * _SCALE)]
    return encode([*rates, line.num_judging, line.num_answering, int(line.is_admitted), line.frauds, list(evidence)])


def _parsed(value: bytes) -> tuple[Standing, tuple[bytes, ...]]:
    row = parse.row(parse.message(value, 1024), 7)
    judging, answering = (parse.integer(rate, 0, _SCALE) / _SCALE for rate in row[:2])
    num_judging, num_answering = (parse.integer(count, 0, MAX_COUNT) for count in row[2:4])
    is_admitted, frauds = parse.integer(row[4], 0, 1), parse.integer(row[5], 0, MAX_COUNT)
    evidence = tuple(parse.octets(digest, 64) for digest in parse.many(row[6], 8))
    return Standing(judging, answering, num_judging, num_answering, bool(is_admitted), 0, frauds), evidence


def alone(replica: Replica, key: PrivateKey, now: Callable[[], float]) -> Callable[..., Awaitable[object]]:
    """A `write` for a node in no mesh: the chain is kept in memory and signed all the same."""

    async def write(*operations: Operation) -> object:
        return replica.write(key, operations, now())

    return write
