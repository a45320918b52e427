"""Who is a member, and who watches whom.

Every peer watches its successor on each of `RINGS` rings, on which peers stand in the order of a hash: a random
expander that all compute alike from the same members (Rapid, Suresh et al. 2018). So links stay few and lasting, which
random probing of ten thousand peers behind NATs would not allow, every peer is watched by about eight, and nobody
chooses whom it may accuse.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from shoal.crypto.hashes import blake3_digest
from shoal.mesh.gossip.claims import Accusation, Statement
from shoal.mesh.peer_id import PeerId

RINGS = 8
REACH = 3
"""How many successors of a peer on a ring it may accuse: views of the ring differ while members come and go, and a peer
that is watched already on another ring is passed over. Up to RINGS * REACH members everybody may accuse everybody."""

BUCKETS = 256
HASH_BYTES = 4

Status = Literal["alive", "suspect", "dead", "left"]


@dataclass(frozen=True, slots=True)
class Member:
    """since        when the status began.
    accusations  against this incarnation, one for each accuser, at most RINGS * REACH.
    deadline     when a suspicion ends in death.
    """

    statement: Statement
    status: Status
    since: float
    accusations: tuple[Accusation, ...] = ()
    deadline: float = 0.0

    @property
    def peer(self) -> PeerId:
        return self.statement.peer

    @property
    def is_present(self) -> bool:
        return self.status in ("alive", "suspect")

    def mark(self) -> int:
        """A hash of what two rosters should agree on; loads may differ."""
        said = self.peer.key + self.statement.incarnation.to_bytes(8, "big") + bytes([self.is_present])
        return int.from_bytes(blake3_digest("shoal gossip mark v1", said)[:HASH_BYTES], "big")


class Roster(Protocol):
    """Members by id. `RingRoster` is the one in use; a simulation shares one between ten thousand peers."""

    @property
    def version(self) -> int:
        """Another number whenever somebody came or went."""
        ...

    def __len__(self) -> int:
        """Members that are present."""
        ...

    @property
    def size(self) -> int:
        """Members, the absent ones included."""
        ...

    def get(self, peer: PeerId) -> Member | None: ...
    def put(self, member: Member) -> None: ...
    def drop(self, peer: PeerId) -> None: ...
    def absent(self) -> Sequence[Member]: ...
    def members(self) -> Iterator[Member]: ...
    def watched_by(self, peer: PeerId) -> tuple[PeerId, ...]:
        """Whom a peer watches: up to RINGS present ones, not itself, all of whom it may accuse."""
        ...

    def may_accuse(self, accuser: PeerId, peer: PeerId) -> bool: ...
    def sample(self, rng: random.Random, count: int, without: frozenset[PeerId]) -> list[PeerId]: ...
    def marks(self) -> list[int]:
        """The xor of the marks of each of BUCKETS buckets, by the first byte of the id."""
        ...

    def bucket(self, index: int) -> list[Member]: ...


def position(peer: PeerId, ring: int) -> int:
    return int.from_bytes(blake3_digest("shoal gossip ring v1", bytes([ring]) + peer.key)[:8], "big")


class RingRoster:
    """Dictionaries and sorted rings: everything is O(log n), a change of members O(n) of a fast copy."""

    def __init__(self) -> None:
        self._buckets: list[dict[PeerId, Member]] = [{} for _ in range(BUCKETS)]
        self._absent: dict[PeerId, Member] = {}
        self._rings: list[list[tuple[int, PeerId]]] = [[] for _ in range(RINGS)]
        self._marks = [0] * BUCKETS
        self._version = 0

    @property
    def version(self) -> int:
        return self._version

    def __len__(self) -> int:
        return len(self._rings[0])

    @property
    def size(self) -> int:
        return len(self) + len(self._absent)

    def get(self, peer: PeerId) -> Member | None:
        return self._buckets[peer.key[0]].get(peer)

    def put(self, member: Member) -> None:
        old = self.get(member.peer)
        self._take_out(old)
        self._buckets[member.peer.key[0]][member.peer] = member
        self._marks[member.peer.key[0]] ^= member.mark()
        if not member.is_present:
            self._absent[member.peer] = member
        if member.is_present and (old is None or not old.is_present):
            self._version += 1
            for number, ring in enumerate(self._rings):
                bisect.insort(ring, (position(member.peer, number), member.peer))
        if old is not None and old.is_present and not member.is_present:
            self._leave_rings(member.peer)

    def drop(self, peer: PeerId) -> None:
        old = self.get(peer)
        self._take_out(old)
        self._buckets[peer.key[0]].pop(peer, None)
        if old is not None and old.is_present:
            self._leave_rings(peer)

    def absent(self) -> Sequence[Member]:
        """Longest absent first."""
        return tuple(self._absent.values())

    def members(self) -> Iterator[Member]:
        for bucket in self._buckets:
            yield from bucket.values()

    def watched_by(self, peer: PeerId) -> tuple[PeerId, ...]:
        found: dict[PeerId, None] = {}
        for number, ring in enumerate(self._rings):
            at = bisect.bisect_right(ring, (position(peer, number), peer))
            for step in range(len(ring) if self._is_small else REACH):
                other = ring[(at + step) % len(ring)][1]
                if other != peer and other not in found:
                    found[other] = None
                    break
        return tuple(found)

    def may_accuse(self, accuser: PeerId, peer: PeerId) -> bool:
        if self._is_small:
            return True
        for number, ring in enumerate(self._rings):
            at = bisect.bisect_left(ring, (position(peer, number), peer))
            if any(ring[(at - step) % len(ring)][1] == accuser for step in range(1, REACH + 1)):
                return True
        return False

    def sample(self, rng: random.Random, count: int, without: frozenset[PeerId]) -> list[PeerId]:
        ring = self._rings[0]
        drawn = rng.sample(ring, min(len(ring), count + len(without)))
        return [peer for _, peer in drawn if peer not in without][:count]

    def marks(self) -> list[int]:
        return self._marks

    def bucket(self, index: int) -> list[Member]:
        return list(self._buckets[index].values())

    @property
    def _is_small(self) -> bool:
        return len(self) <= RINGS * REACH

    def _take_out(self, old: Member | None) -> None:
        if old is not None:
            self._marks[old.peer.key[0]] ^= old.mark()
            self._absent.pop(old.peer, None)

    def _leave_rings(self, peer: PeerId) -> None:
        self._version += 1
        for number, ring in enumerate(self._rings):
            del ring[bisect.bisect_left(ring, (position(peer, number), peer))]


def accused(member: Member, accusation: Accusation) -> Member:
    """The member with one more accusation."""
    return replace(member, accusations=(*member.accusations, accusation)[: RINGS * REACH])
