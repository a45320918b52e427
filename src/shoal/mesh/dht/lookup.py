"""Finding the peers nearest to a key: a pure state machine: ask `queries`, feed `replied` and `failed`, until done.

With several `paths` (S/Kademlia, Baumgart and Mies 2007) the start is dealt out to them, no peer is asked by two, and
each goes on with what its own peers said: a liar on one path cannot lead the others away.

Bounds: a path keeps `4 k` candidates and asks at most `max_queries` peers, whatever the replies say.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shoal.mesh.dht.contact import Contact


@dataclass(frozen=True, slots=True)
class Shape:
    """k: peers wanted; alpha: calls at once on each path; paths: disjoint ones; max_queries: of each path."""

    k: int = 20
    alpha: int = 3
    paths: int = 1
    max_queries: int = 96


@dataclass(slots=True)
class _Path:
    order: list[tuple[int, Contact]] = field(default_factory=list)  # (distance, contact), nearest first
    known: set[int] = field(default_factory=set)
    flying: int = 0
    asked: int = 0


class Lookup:
    """`own` is never asked. `depth` of a peer is how many steps it is from the start: its hops."""

    def __init__(self, target: int, own: int, start: Sequence[Contact], shape: Shape) -> None:
        self.target = target
        self._shape = shape
        self._paths = [_Path(known={own}) for _ in range(shape.paths)]
        self._asked_by: dict[int, _Path] = {}
        self._failed: set[int] = set()
        self._replied: dict[int, Contact] = {}
        self._depth: dict[int, int] = {contact.place: 1 for contact in start}
        for number, contact in enumerate(start):
            self._add(self._paths[number % shape.paths], (contact,))

    @property
    def is_done(self) -> bool:
        return all(path.flying == 0 and self._next(path) is None for path in self._paths)

    @property
    def num_queries(self) -> int:
        return len(self._asked_by)

    def queries(self) -> list[Contact]:
        """Whom to ask now; each is asked once."""
        found = []
        for path in self._paths:
            while path.flying < self._shape.alpha and (contact := self._next(path)) is not None:
                self._asked_by[contact.place] = path
                path.flying += 1
                path.asked += 1
                found.append(contact)
        return found

    def replied(self, contact: Contact, nearer: Iterable[Contact]) -> None:
        path = self._asked_by[contact.place]
        path.flying -= 1
        self._replied[contact.place] = contact
        for other in (told := list(nearer)):
            self._depth.setdefault(other.place, self._depth[contact.place] + 1)
        self._add(path, told)

    def failed(self, contact: Contact) -> None:
        self._asked_by[contact.place].flying -= 1
        self._failed.add(contact.place)

    def closest(self) -> tuple[Contact, ...]:
        """Up to k that answered, an equal share from each path, the nearest of each first."""
        shares = [self._answered(path) for path in self._paths]
        ranks = range(max(map(len, shares), default=0))
        dealt = [share[rank] for rank in ranks for share in shares if rank < len(share)]
        return tuple(sorted(dealt[: self._shape.k], key=lambda contact: contact.place ^ self.target))

    def hops(self) -> int:
        """Steps to the nearest peer that answered; 0 when none did."""
        nearest = min(self._replied, key=lambda place: place ^ self.target, default=None)
        return 0 if nearest is None else self._depth[nearest]

    def _answered(self, path: _Path) -> list[Contact]:
        return [
            contact for _, contact in path.order
            if contact.place in self._replied and self._asked_by[contact.place] is path
        ]  # fmt: skip

    def _add(self, path: _Path, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.place not in path.known:
                path.known.add(contact.place)
                bisect.insort(path.order, (contact.place ^ self.target, contact), key=lambda pair: pair[0])
        del path.order[4 * self._shape.k :]

    def _next(self, path: _Path) -> Contact | None:
        """The nearest peer nobody has asked, if it is among the path's k nearest that have not failed."""
        if path.asked >= self._shape.max_queries:
            return None
        left = self._shape.k
        for _, contact in path.order:
            if contact.place in self._failed:
                continue
            if contact.place not in self._asked_by:
                return contact
            left -= 1
            if left == 0:
                return None
        return None
