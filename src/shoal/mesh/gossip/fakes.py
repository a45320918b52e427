"""Ten thousand `Membership`s in a process under simulated time: loss, delay, crashes, restarts; no I/O, no signatures.

`Simulation` is an event queue around the real state machine; `SharedRoster` is a roster that stores only how one peer's
view differs from a common base, because ten thousand full rosters would be a hundred million members.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from shoal.mesh.address import Address
from shoal.mesh.fakes import numbered
from shoal.mesh.gossip.claims import Author, Claim, Statement
from shoal.mesh.gossip.membership import (
    SYNC_CLAIMS,
    Action,
    AskOthers,
    Membership,
    Probe,
    Settings,
    Sync,
    Tell,
)
from shoal.mesh.gossip.roster import REACH, RINGS, Member, RingRoster, Roster
from shoal.mesh.peer_id import PeerId

STATEMENT_BYTES = 190
ACCUSATION_BYTES = 142
MESSAGE_BYTES = 40
"""What `rpc` and a carrier add to one message, roughly; the claims' sizes are those of `claim_row` (a test checks)."""


class Base:
    """Members that every peer of a simulation knows at first, and where they stand on the rings."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.roster = RingRoster()
        for member in members:
            self.roster.put(member)
        self.rings = [[peer for _, peer in ring] for ring in self.roster._rings]
        self.places: dict[PeerId, list[int]] = {peer: [] for peer in self.rings[0]}
        for ring in self.rings:
            for at, peer in enumerate(ring):
                self.places[peer].append(at)


class SharedRoster:
    """One peer's view: the base and what is different. Peers outside the base are refused (KeyError)."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._changed: dict[PeerId, Member] = {}
        self._absent: dict[PeerId, Member] = {}
        self._marks = list(base.roster.marks())
        self.version = 0

    @property
    def size(self) -> int:
        return len(self) + len(self.absent())

    def __len__(self) -> int:
        return len(self._base.places) - len(self._absent)

    def get(self, peer: PeerId) -> Member | None:
        return self._changed.get(peer) or self._base.roster.get(peer)

    def put(self, member: Member) -> None:
        peer = member.peer
        old = self._changed.get(peer) or self._base.roster.get(peer)
        if old is None:
            raise KeyError(peer)
        if old.is_present != member.is_present or old.statement.incarnation != member.statement.incarnation:
            self._marks[peer.key[0]] ^= old.mark() ^ member.mark()
        if old.is_present != member.is_present:
            self.version += 1
        self._changed[peer] = member
        self._absent.pop(peer, None)
        if not member.is_present:
            self._absent[peer] = member

    def drop(self, peer: PeerId) -> None:
        """Nobody is forgotten here: a simulation is shorter than a tombstone's life."""

    def absent(self) -> Sequence[Member]:
        return tuple(self._absent.values())

    def members(self) -> Iterator[Member]:
        return (self._changed.get(member.peer, member) for member in self._base.roster.members())

    def watched_by(self, peer: PeerId) -> tuple[PeerId, ...]:
        found: dict[PeerId, None] = {}
        for ring, at in zip(self._base.rings, self._base.places[peer], strict=True):
            left, step = len(ring) if len(self) <= RINGS * REACH else REACH, 1
            while left and step < len(ring):
                other = ring[(at + step) % len(ring)]
                if other not in self._absent and other not in found:
                    found[other] = None
                    break
                left -= other not in self._absent
                step += 1
        return tuple(found)

    def may_accuse(self, accuser: PeerId, peer: PeerId) -> bool:
        if len(self) <= RINGS * REACH:
            return True
        for ring, at in zip(self._base.rings, self._base.places[peer], strict=True):
            left, step = REACH, 1
            while left:
                other = ring[(at - step) % len(ring)]
                if other == accuser:
                    return True
                left -= other not in self._absent
                step += 1
        return False

    def sample(self, rng: random.Random, count: int, without: frozenset[PeerId]) -> list[PeerId]:
        drawn = rng.sample(self._base.rings[0], min(len(self._base.places), count + len(without) + len(self._absent)))
        return [peer for peer in drawn if peer not in self._absent and peer not in without][:count]

    def marks(self) -> list[int]:
        return self._marks

    def bucket(self, index: int) -> list[Member]:
        return [self._changed.get(member.peer, member) for member in self._base.roster.bucket(index)]


@dataclass(frozen=True, slots=True)
class Air:
    """One-way delays in seconds and the chance that a message is lost (a real carrier sends it again)."""

    delay_s: tuple[float, float] = (0.01, 0.08)
    loss: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """`at`, `observer` saw `member`'s status change."""

    at: float
    observer: PeerId
    member: Member


class Simulation:
    """`seen` hears every change of status that any peer sees. Crashed peers neither send, receive nor tick."""

    def __init__(
        self, count: int, air: Air, seen: Callable[[Change], None], seed: int = 0, is_shared: bool = True
    ) -> None:
        self.peers = [numbered(number) for number in range(count)]
        self.now = 0.0
        self.num_bytes = 0
        self.num_messages = 0
        self._air, self._seen, self._settings = air, seen, Settings()
        self._random = random.Random(seed)  # noqa: S311  a repeatable run
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._crashed: set[PeerId] = set()
        self._planned: dict[PeerId, float] = {}
        members = [Member(_first(peer, 1), "alive", 0.0) for peer in self.peers]
        base = Base(members)
        self.nodes = {
            peer: self._node(peer, 1, SharedRoster(base) if is_shared else _full(members)) for peer in self.peers
        }
        for peer in self.peers:
            self._plan(peer)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def crash(self, peer: PeerId) -> None:
        self._crashed.add(peer)

    def restart(self, peer: PeerId) -> None:
        """Back in a new incarnation; its roster is what it was (a real peer would sync)."""
        self._crashed.discard(peer)
        old = self.nodes[peer]
        self.nodes[peer] = self._node(peer, old.own.incarnation + 1, old.roster)
        self._plan(peer)

    def change_load(self, peer: PeerId, queue: int) -> None:
        node = self.nodes[peer]
        node.state(replace(node.own, load=replace(node.own.load, queue=queue)), self.now)

    def _node(self, peer: PeerId, incarnation: int, roster: Roster) -> Membership:
        author = Author(peer, lambda purpose, message: b"")
        node = Membership(author, _first(peer, incarnation), roster, self._settings, random.Random(peer.key))  # noqa: S311
        node.start(self.now)
        if incarnation == 1:
            node._outbox.take(1, 1)  # all know each other from the start: nothing to announce
        return node

    def _plan(self, peer: PeerId) -> None:
        due = max(self.nodes[peer].due, self.now)
        if due < self._planned.get(peer, float("inf")):
            self._planned[peer] = due
            self._at(due, lambda: self._tick(peer, due))

    def _tick(self, peer: PeerId, due: float) -> None:
        if self._planned.get(peer) != due:
            return  # something earlier was planned meanwhile, and has been done
        del self._planned[peer]
        if peer not in self._crashed:
            for action in self.nodes[peer].tick(self.now):
                self._do(peer, action)
            self._touched(peer)

    def _do(self, peer: PeerId, action: Action) -> None:
        match action:
            case Probe():
                self._ping(peer, action.peer, action.claims, action.timeout_s)
            case AskOthers():
                self._ask_others(peer, action)
            case Tell():
                self._send(peer, action.peer, action.claims, lambda: None)
            case Sync():
                self._sync(peer, action.peer)

    def _ping(self, peer: PeerId, other: PeerId, claims: tuple[Claim, ...], timeout_s: float) -> None:
        node, answered = self.nodes[peer], list[bool]()
        self._exchange(peer, other, claims, timeout_s, answered)

        def end() -> None:
            if peer in self._crashed:
                return
            if answered:
                node.answered(other)
            else:
                for action in node.silent(other):
                    self._do(peer, action)

        self._at(self.now + timeout_s, end)

    def _exchange(
        self, peer: PeerId, other: PeerId, claims: tuple[Claim, ...], timeout_s: float, answered: list[bool]
    ) -> None:
        """A ping and its answer; `answered` gets an item when that comes in time."""
        until = self.now + timeout_s

        def received() -> None:
            if self.now <= until:
                answered.append(True)

        def back() -> None:
            self._send(other, peer, self.nodes[other].claims_for(peer), received)

        self._send(peer, other, claims, back)

    def _ask_others(self, peer: PeerId, ask: AskOthers) -> None:
        """The helpers' pings carry no claims here; their legs are drawn at once."""
        node, answered = self.nodes[peer], list[bool]()
        self._exchange(peer, ask.peer, node.claims_for(ask.peer), ask.timeout_s, answered)
        reached, missing = False, 0
        for helper in ask.helpers:
            self.num_messages += 4
            self.num_bytes += 4 * MESSAGE_BYTES + 80 + 2 * STATEMENT_BYTES
            is_here = helper not in self._crashed and not self._is_lost() and not self._is_lost()
            missing += not is_here
            reached |= is_here and ask.peer not in self._crashed and not self._is_lost() and not self._is_lost()

        def end() -> None:
            if peer not in self._crashed:
                node.verdict(ask.peer, reached or bool(answered), missing, self.now)
                self._touched(peer)

        self._at(self.now + ask.timeout_s, end)

    def _sync(self, peer: PeerId, other: PeerId) -> None:
        marks = self.nodes[peer].marks()
        self.num_bytes += 1024

        def back() -> None:
            self._send(other, peer, self.nodes[other].differing(marks, SYNC_CLAIMS), lambda: None)

        self._send(peer, other, (), back)

    def _send(self, peer: PeerId, other: PeerId, claims: Sequence[Claim], then: Callable[[], None]) -> None:
        self.num_messages += 1
        self.num_bytes += MESSAGE_BYTES + sum(
            STATEMENT_BYTES if isinstance(claim, Statement) else ACCUSATION_BYTES for claim in claims
        )
        if not self._is_lost():
            self._at(self.now + self._random.uniform(*self._air.delay_s), lambda: self._arrive(other, claims, then))

    def _arrive(self, peer: PeerId, claims: Sequence[Claim], then: Callable[[], None]) -> None:
        if peer in self._crashed:
            return
        node = self.nodes[peer]
        for claim in claims:
            if node.is_news(claim):
                node.take(claim, self.now)
        then()
        self._touched(peer)

    def _touched(self, peer: PeerId) -> None:
        for member in self.nodes[peer].changes():
            self._seen(Change(self.now, peer, member))
        self._plan(peer)

    def _is_lost(self) -> bool:
        return self._air.loss > 0 and self._random.random() < self._air.loss

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))


def _first(peer: PeerId, incarnation: int) -> Statement:
    return Statement(Address(peer, (f"10.0.0.{peer.key[0]}:4000",)), incarnation)


def _full(members: Iterable[Member]) -> RingRoster:
    roster = RingRoster()
    for member in members:
        roster.put(member)
    return roster
