"""SWIM's membership (Das, Gupta and Motivala 2002) as a pure state machine: `(claims or outcomes, now) -> actions`.

A peer's life in one roster; what moves it is in brackets:

    (statement) -> alive -(accusation)-> suspect -(deadline)-> dead
                     ^                      |                    |
                     +--- (newer incarnation of its own) <------+          (goodbye) from anywhere -> left

Rules that stay true in this file:
- only a peer itself says it is alive, in which incarnation, and what its load is;
- only those who watch a peer accuse it, and whoever's accusations are refuted again and again is not heard;
- an accused peer that hears of it refutes at once; whoever talks to a suspect tells it first;
- a message holds at most `MAX_CLAIMS` claims, whatever happens;
- a roster holds at most `Settings.members`: identities are free. A newcomer takes the place of one who has left.

What this does not protect against: a crowd of made-up members that fills the roster (the node works on with those it
knows, and whoever talks to it directly is let in); watchers that all lie, each once (a live peer is then suspected, and
refutes); a peer whose refutations its neighbours all swallow counts as dead until it reaches somebody else.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoal.mesh.gossip.claims import Accusation, Author, Claim, Statement
from shoal.mesh.gossip.outbox import Outbox
from shoal.mesh.gossip.roster import BUCKETS, Member, Roster, accused
from shoal.mesh.gossip.suspicion import Awareness, Damping, suspicion_s
from shoal.mesh.peer_id import PeerId

MAX_CLAIMS = 12
MAX_CHANGES = 20_000
MAX_SYNC = 512
SYNC_CLAIMS = 128
"""Claims in the answer to a routine sync: about 25 kB."""


@dataclass(frozen=True, slots=True)
class Settings:
    """period_s   between probes of this peer; each watched peer is probed by eight, so once a period by somebody.
    timeout_s    of a probe; helpers get as much again.
    flush_s      shortest time between messages that carry urgent claims; each goes to `fanout` peers.
    loads_per_s  new loads that the whole mesh may spread in a second: at n members each publishes every n / loads_per_s
                 seconds at most. Neighbours see each other's newest with every probe.
    members      in the roster, the lately dead included.
    """

    period_s: float = 1.0
    timeout_s: float = 0.5
    helpers: int = 3
    flush_s: float = 0.2
    fanout: int = 3
    sync_s: float = 30.0
    tombstone_s: float = 600.0
    loads_per_s: float = 5.0
    members: int = 20_000


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask `peer` whether it is there; then `answered` or `silent`."""

    peer: PeerId
    claims: tuple[Claim, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class AskOthers:
    """Have `helpers` probe `peer`, and try once more oneself; then `verdict`."""

    peer: PeerId
    helpers: tuple[PeerId, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Tell:
    peer: PeerId
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """Send `marks` and take in what `peer` knows better."""

    peer: PeerId


Action = Probe | AskOthers | Tell | Sync


class Membership:
    """`own` is the first statement. Times are monotonic seconds."""

    def __init__(self, author: Author, own: Statement, roster: Roster, settings: Settings, rng: random.Random) -> None:
        self.roster = roster
        self.awareness = Awareness()
        self.flaps = Damping()
        self._liars = Damping()
        self._author = author
        self._own = author.statement(own)
        self._settings = settings
        self._random = rng
        self._outbox = Outbox()
        self._turns: list[PeerId] = []
        self._told = rng.randrange(2**16)
        self._suspects: dict[PeerId, None] = {}
        self._next_probe = self._next_sync = self._next_flush = self._next_load = self._next_purge = float("-inf")
        self._wanted: Statement | None = None
        self._watched_at, self._watching = -1, tuple[PeerId, ...]()
        self._changes: deque[Member] = deque(maxlen=MAX_CHANGES)

    @property
    def own(self) -> Statement:
        return self._own

    def start(self, now: float) -> None:
        """Begin: announce this peer, spread first probes and syncs over their periods."""
        self.roster.put(Member(self._own, "alive", now))
        self._outbox.put(self._own, is_urgent=True)
        self._next_probe = now + self._random.uniform(0, self._settings.period_s)
        self._next_sync = now + self._random.uniform(0, self._settings.sync_s)
        self._next_flush = self._next_load = now
        self._next_purge = now + self._settings.tombstone_s / 4

    @property
    def due(self) -> float:
        """When `tick` has something to do next."""
        times = [self._next_probe, self._next_sync, self._next_purge]
        if self._outbox.has_urgent:
            times.append(self._next_flush)
        if self._wanted is not None:
            times.append(self._next_load)
        times += [member.deadline for peer in self._suspects if (member := self.roster.get(peer)) is not None]
        return min(times)

    def tick(self, now: float) -> list[Action]:
        """What is due now."""
        self._bury(now)
        self._publish(now)
        actions: list[Action] = []
        if now >= self._next_probe:
            self._next_probe = now + self._settings.period_s * self.awareness.factor
            actions += self._probe()
        if self._outbox.has_urgent and now >= self._next_flush:
            self._next_flush = now + self._settings.flush_s
            actions += self._flush()
        if now >= self._next_sync:
            self._next_sync = now + self._settings.sync_s * self._random.uniform(0.8, 1.2)
            actions += self._sync()
        if now >= self._next_purge:
            self._next_purge = now + self._settings.tombstone_s / 4
            self._purge(now)
        return actions

    def changes(self) -> list[Member]:
        """Members whose status changed since the last call, in order; the newest MAX_CHANGES."""
        found = list(self._changes)
        self._changes.clear()
        return found

    # ---- what this peer says of itself --------------------------------------------------------------------------

    def state(self, wanted: Statement, now: float) -> None:
        """New address or load of this peer; published as soon as the mesh's budget allows, the last one wins."""
        self._wanted = wanted
        self._publish(now)

    def leave(self, now: float) -> list[Action]:
        """Say goodbye to all neighbours, once."""
        self._renew(replace(self._own, left=True, sequence=self._own.sequence + 1), now, is_urgent=True)
        return [Tell(peer, (self._own,)) for peer in self._watched()]

    # ---- what others say -------------------------------------------------------------------------------------------

    def is_news(self, claim: Claim) -> bool:
        """Whether `take` would change anything: only then is a signature worth checking."""
        member = self.roster.get(claim.peer)
        if isinstance(claim, Statement):
            if member is None and self._is_full:
                return False
            return member is None or claim.version > member.statement.version
        if member is None or not member.is_present or claim.incarnation != member.statement.incarnation:
            return False
        return all(old.accuser != claim.accuser for old in member.accusations)

    @property
    def _is_full(self) -> bool:
        return self.roster.size >= self._settings.members and not self.roster.absent()

    def welcome(self, peer: PeerId) -> None:
        """`peer` is here itself: where the roster is full somebody drawn by lot makes room for it."""
        if self.roster.get(peer) is None and self._is_full:
            for other in self.roster.sample(self._random, 1, frozenset((self._author.peer, *self._watched()))):
                self.roster.drop(other)

    def take(self, claim: Claim, now: float) -> None:
        """One claim, its signature checked. Old news changes nothing."""
        if not self.is_news(claim):
            return
        if isinstance(claim, Statement):
            self._take_statement(claim, now)
        else:
            self._take_accusation(claim, now)

    def claims_for(self, peer: PeerId) -> tuple[Claim, ...]:
        """What goes along with a message to `peer`: this peer's own statement, what is said against it, then news."""
        member = self.roster.get(peer)
        against = member.accusations[:2] if member is not None else ()
        left = MAX_CLAIMS - 1 - len(against)
        return (self._own, *against, *self._outbox.take(left))

    # ---- outcomes of actions ---------------------------------------------------------------------------------------

    def answered(self, peer: PeerId) -> None:
        """A probe was answered."""
        self.awareness.well()

    def silent(self, peer: PeerId) -> list[Action]:
        """A probe was not: whom to ask for help."""
        without = frozenset((peer, self._author.peer))
        helpers = self.roster.sample(self._random, self._settings.helpers, without)
        return [AskOthers(peer, tuple(helpers), self._settings.timeout_s * 2 * self.awareness.factor)]

    def doubt(self, peer: PeerId, now: float) -> None:
        """Something beside the probes says that `peer` may be gone: see for oneself, now, where it is watched."""
        member = self.roster.get(peer)
        if member is not None and member.is_present and peer in self._watched():
            self._turns.append(peer)
            self._next_probe = min(self._next_probe, now)

    def verdict(self, peer: PeerId, was_reached: bool, num_missing: int, now: float) -> None:
        """How asking others ended; `num_missing` of them did not answer at all, which may be this peer's own fault."""
        if num_missing:
            self.awareness.unwell()
        member = self.roster.get(peer)
        if was_reached or member is None or not member.is_present:
            return
        if self._author.peer not in {accusation.accuser for accusation in member.accusations}:
            self._take_accusation(self._author.accusation(peer, member.statement.incarnation), now)

    # ---- comparing rosters -----------------------------------------------------------------------------------------

    def marks(self) -> list[int]:
        return list(self.roster.marks())

    def differing(self, marks: Sequence[int], limit: int) -> list[Claim]:
        """What to tell whoever has these marks: the members of buckets that differ, and what is said against them."""
        here = self.roster.marks()
        buckets = [index for index in range(BUCKETS) if here[index] != marks[index]]
        claims: list[Claim] = []
        for index in self._random.sample(buckets, len(buckets)):
            for member in self.roster.bucket(index):
                claims += [member.statement, *member.accusations[:1]]
            if len(claims) >= limit:
                break
        return claims[:limit]

    # ---- how -------------------------------------------------------------------------------------------------------

    def _take_statement(self, claim: Statement, now: float) -> None:
        if claim.peer == self._author.peer:  # of an earlier life of this peer: say something newer
            self._renew(replace(self._own, incarnation=claim.incarnation + 1), now, is_urgent=True)
            return
        old = self.roster.get(claim.peer)
        is_new_life = old is None or claim.incarnation > old.statement.incarnation
        if old is not None and not is_new_life and not claim.left:
            self.roster.put(replace(old, statement=claim))
            self._outbox.put(claim, is_urgent=False)
            return
        if old is not None and is_new_life and old.status == "suspect":
            for accusation in old.accusations:
                self._liars.penalise(accusation.accuser, now)
        if old is not None and (claim.left or not old.is_present):
            self.flaps.penalise(claim.peer, now)
        if old is None and self.roster.size >= self._settings.members:
            self.roster.drop(self.roster.absent()[0].peer)
        self._suspects.pop(claim.peer, None)
        self._change(Member(claim, "left" if claim.left else "alive", now))
        self._outbox.put(claim, is_urgent=True)

    def _take_accusation(self, claim: Accusation, now: float) -> None:
        if claim.peer == self._author.peer:
            self.awareness.unwell()
            self._renew(replace(self._own, incarnation=self._own.incarnation + 1), now, is_urgent=True)
            return
        is_ours = claim.accuser == self._author.peer
        if not is_ours and (
            self._liars.is_damped(claim.accuser, now) or not self.roster.may_accuse(claim.accuser, claim.peer)
        ):
            return
        member = self.roster.get(claim.peer)
        if member is None or not member.is_present:
            return
        if not member.accusations:
            self.doubt(claim.peer, now)
        self._suspect(accused(member, claim), now)
        self._outbox.put(claim, is_urgent=len(member.accusations) < 3)

    def _suspect(self, member: Member, now: float) -> None:
        began = member.since if member.status == "suspect" else now
        wait = suspicion_s(len(self.roster), len(member.accusations), self._settings.period_s * self.awareness.factor)
        self._change(replace(member, status="suspect", since=began, deadline=began + wait))
        self._suspects[member.peer] = None

    def _bury(self, now: float) -> None:
        for peer in list(self._suspects):
            member = self.roster.get(peer)
            if member is None or member.status != "suspect":
                del self._suspects[peer]
            elif member.deadline <= now:
                del self._suspects[peer]
                self._change(replace(member, status="dead", since=now))
                self.flaps.penalise(peer, now)

    def _publish(self, now: float) -> None:
        if self._wanted is None or now < self._next_load:
            return
        self._next_load = now + max(1.0, len(self.roster) / self._settings.loads_per_s)
        fresh = replace(self._own, address=self._wanted.address, load=self._wanted.load)
        self._wanted = None
        self._renew(replace(fresh, sequence=self._own.sequence + 1), now, is_urgent=False)

    def _renew(self, draft: Statement, now: float, is_urgent: bool) -> None:
        self._own = self._author.statement(draft)
        self.roster.put(Member(self._own, "left" if draft.left else "alive", now))
        self._outbox.put(self._own, is_urgent)

    def _change(self, member: Member) -> None:
        self.roster.put(member)
        self._changes.append(member)

    def _watched(self) -> tuple[PeerId, ...]:
        if self._watched_at != self.roster.version:
            self._watched_at, self._watching = self.roster.version, self.roster.watched_by(self._author.peer)
        return self._watching

    def _probe(self) -> list[Action]:
        """The next in turn; each watched peer once a round, in a new random order."""
        watched = self._watched()
        while self._turns and self._turns[-1] not in watched:
            self._turns.pop()
        if not self._turns:
            self._turns = self._random.sample(watched, len(watched))
        if not self._turns:
            return []
        peer = self._turns.pop()
        return [Probe(peer, self.claims_for(peer), self._settings.timeout_s * self.awareness.factor)]

    def _flush(self) -> list[Action]:
        """To the next `fanout` neighbours in turn, so that a claim's sends go to different ones."""
        watched = self._watched()
        if not watched:
            return []
        fanout = min(self._settings.fanout, len(watched))
        chosen = [watched[(self._told + step) % len(watched)] for step in range(fanout)]
        self._told += fanout
        told = [Tell(peer, tuple(self._outbox.take(MAX_CLAIMS))) for peer in chosen]
        return [action for action in told if action.claims]

    def _sync(self) -> list[Action]:
        """With a random member, now and then with a dead one: a mesh that was torn apart grows together again."""
        dead = [member.peer for member in self.roster.absent() if member.status == "dead"]
        if dead and self._random.random() < 0.25:
            return [Sync(self._random.choice(dead))]
        return [Sync(peer) for peer in self.roster.sample(self._random, 1, frozenset((self._author.peer,)))]

    def _purge(self, now: float) -> None:
        for member in self.roster.absent():
            if now - member.since >= self._settings.tombstone_s and member.peer != self._author.peer:
                self.roster.drop(member.peer)
