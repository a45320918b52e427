"""Replicas end alike whatever is reordered, repeated, lost, forked or cut short; and say why they refuse."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import LocalError, PeerFault
from shoal.crypto.keys import PrivateKey
from shoal.mesh.store import entry as entries_module
from shoal.mesh.store.entry import Add, Count, Entry, Operation, Present, Put, Remove, Tag, parse_entry, signed
from shoal.mesh.store.grant import Grant, Namespace, own_prefix
from shoal.mesh.store.heads import Head, Heads, Items, exchange
from shoal.mesh.store.log import Fork, parse_fork
from shoal.mesh.store.replica import TOMBSTONE_S, Limits, Received, Replica
from shoal.mesh.store.stamp import MAX_STAMP, stamp_at

NOW = 1_700_000_000.0
OWNER, *KEYS = (PrivateKey(bytes([number]) * 32) for number in range(1, 6))
SPACE = Namespace("test", OWNER.public)
SHARED = "shared/"


def granted(key: PrivateKey, begins: int = 0, ends: int = MAX_STAMP) -> Present:
    return Present(Grant(SPACE.id, key.public, SHARED, begins, ends).signed(OWNER))


def everything(replica: Replica) -> dict[str, object]:
    names = list(replica.names())
    return {name: (replica.value(name), replica.elements(name), replica.count(name)) for name in names} | {
        "forks": {author: log.fork.sequence for author, log in replica.logs.items() if log.fork is not None}
    }


def readable(replica: Replica) -> dict[str, object]:
    """`everything` but for keys where nothing is left."""
    empty = (None, frozenset(), 0)
    return {name: value for name, value in everything(replica).items() if value != empty}


def differences(one: Replica, other: Replica) -> tuple[list[tuple[Head, Head]], int]:
    """As `Store` finds them, and in how many rounds."""
    here, there = Heads(one.logs), Heads(other.logs)
    asked, pairs, rounds = [here.all()], list[tuple[Head, Head]](), 0
    while asked:
        rounds += 1
        findings = [there.answer(item) for item in asked]
        pairs += [pair for found in findings if isinstance(found, Items) for pair in here.differences(found)]
        asked = [item for found in findings if isinstance(found, tuple) for item in here.differing(found)]
    return pairs, rounds


def synchronise(one: Replica, other: Replica, now: float) -> None:
    before: list[tuple[Head, Head]] = []
    while (pairs := differences(one, other)[0]) and pairs != before:
        plan, before = exchange(pairs), pairs
        for giver, taker, wanted in ((other, one, plan.wanted), (one, other, plan.offered)):
            logs = [(giver.logs[author], first) for author, first in wanted.items() if author in giver.logs]
            forks = [parse_fork(log.fork.row()) for log, _ in logs if log.fork is not None]
            taker.receive([item for log, first in logs for item in log.since(first)], now, forks)


# ---- convergence ----------------------------------------------------------------------------------------------


@dataclass
class Swarm:
    """Authors with a replica each, a network that keeps every entry ever sent, and a clock."""

    rng: random.Random
    replicas: list[Replica] = field(default_factory=lambda: [Replica(SPACE) for _ in KEYS])
    sent: list[Entry] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)
    now: float = NOW

    def step(self) -> None:
        self.now += self.rng.choice([0.0, 0.001, 1.0])
        author = self.rng.randrange(len(KEYS))
        action = self.rng.random()
        if action < 0.55:
            self.write(author)
        elif action < 0.60:
            if self.may_write(author, needs_log=True):
                self.note(self.replicas[author].checkpoint(KEYS[author], self.now))
        elif action < 0.62:
            self.fork(author)
        elif action < 0.64:
            self.crash(author)
        elif self.sent:
            some = self.rng.choices(self.sent, k=self.rng.randint(1, 8))  # repeated and out of order
            self.replicas[author].receive(some, self.now)

    def write(self, author: int) -> None:
        replica, key = self.replicas[author], KEYS[author]
        log = replica.logs.get(key.public)
        if not self.may_write(author):
            return
        operations: list[Operation] = [granted(key)] if log is None else []
        operations += [self.operation(replica) for _ in range(self.rng.randint(1, 3))]
        self.note(replica.write(key, operations, self.now))

    def may_write(self, author: int, needs_log: bool = False) -> bool:
        """Whether the author has not heard that it forked itself."""
        log = self.replicas[author].logs.get(KEYS[author].public)
        return not needs_log if log is None else log.fork is None

    def operation(self, replica: Replica) -> Operation:
        name = SHARED + self.rng.choice("abc")
        element = self.rng.choice([b"x", b"y"])
        kinds: list[Operation] = [
            Put(name, self.rng.choice([None, self.rng.randbytes(2)])),
            Add(name, element),
            Remove(name, replica.tags(name, element)),
            Count(name, self.rng.randint(-5, 5)),
        ]
        return self.rng.choice(kinds)

    def fork(self, author: int) -> None:
        """Sign another entry in the place of one that was sent."""
        own = [item for item in self.sent if item.link.author == KEYS[author].public]
        if own:
            victim = self.rng.choice(own)
            self.sent.append(signed(victim.link, [Count(own_prefix(KEYS[author].public), 1)], KEYS[author]))

    def crash(self, author: int) -> None:
        """Begin again from what a disk would hold."""
        old = self.replicas[author]
        forks = [log.fork for log in old.logs.values() if log.fork is not None]
        new = Replica(SPACE)
        new.receive([item for log in old.logs.values() for item in log.entries], self.now, forks, is_trusted=True)
        assert everything(new) == everything(old)
        self.replicas[author] = new

    def note(self, received: Received) -> None:
        self.sent += received.accepted

    def settle(self) -> None:
        for _ in range(3):
            for one in self.replicas:
                for other in self.replicas:
                    if one is not other:
                        synchronise(one, other, self.now)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_replicas_converge_under_reordering_repetition_loss_forks_checkpoints_and_crashes(
    seed: int, steps: int
) -> None:
    swarm = Swarm(random.Random(seed))
    for _ in range(steps):
        swarm.step()
    swarm.settle()
    first = readable(swarm.replicas[0])
    assert all(readable(replica) == first for replica in swarm.replicas)
    assert all(differences(swarm.replicas[0], replica)[0] == [] for replica in swarm.replicas)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_without_forks_every_replica_reads_what_a_naive_fold_of_all_operations_gives(seed: int) -> None:
    swarm = Swarm(random.Random(seed))
    for _ in range(40):
        swarm.now += 0.5
        author = swarm.rng.randrange(len(KEYS))
        swarm.write(author)
        swarm.replicas[author].receive(swarm.rng.choices(swarm.sent, k=4), swarm.now)
    swarm.settle()
    puts: dict[str, Any] = {}
    counts: dict[str, int] = {}
    adds: dict[str, dict[Tag, bytes]] = {}
    removed = set()
    for item in swarm.sent:
        for place, operation in enumerate(item.operations):
            tag = (item.link.author, item.link.sequence, place)
            match operation:
                case Put(key, value):
                    puts[key] = max(puts.get(key, ((0,),)), ((item.link.stamp, *tag), value), key=lambda cell: cell[0])
                case Count(key, change):
                    counts[key] = counts.get(key, 0) + change
                case Add(key, element):
                    adds.setdefault(key, {})[tag] = element
                case Remove(_, tags):
                    removed |= set(tags)
    for replica in swarm.replicas:
        for name in (SHARED + letter for letter in "abc"):
            assert replica.value(name) == (puts[name][1] if name in puts else None)
            assert replica.count(name) == counts.get(name, 0)
            assert replica.elements(name) == {e for tag, e in adds.get(name, {}).items() if tag not in removed}


def test_few_rounds_find_few_differences_among_many_authors() -> None:
    one, other = Replica(SPACE), Replica(SPACE)
    keys = [PrivateKey(random.Random(number).randbytes(32)) for number in range(2000)]
    for key in keys:
        accepted = one.write(key, [Put(own_prefix(key.public), b"1")], NOW).accepted
        other.receive(accepted, NOW, is_trusted=True)
    for key in keys[::500]:
        one.write(key, [Put(own_prefix(key.public), b"2")], NOW)
    pairs, rounds = differences(one, other)
    assert {own.author for own, _ in pairs} == {key.public for key in keys[::500]}
    assert rounds <= 4  # 2000 / 16 / 16 < 16 items, and the round that finds out


# ---- forks ----------------------------------------------------------------------------------------------------


def chain(key: PrivateKey, length: int) -> Replica:
    replica = Replica(SPACE)
    for number in range(length):
        replica.write(key, [Put(own_prefix(key.public) + "a", bytes([number]))], NOW + number)
    return replica


def test_a_fork_is_proven_to_third_parties_and_ends_the_author_there() -> None:
    key = KEYS[0]
    replica = chain(key, 5)
    honest = replica.logs[key.public].entries
    other = signed(honest[2].link, [Put(own_prefix(key.public) + "a", b"lie")], key)
    received = replica.receive([other], NOW)
    assert [refusal.why for refusal in received.refused] == ["its author signed two histories"]
    (fork,) = received.forks
    assert replica.logs[key.public].head == 2
    assert replica.value(own_prefix(key.public) + "a") == b"\x01"
    third = Replica(SPACE)
    third.receive(honest, NOW + 9, [parse_fork(fork.row())])
    assert everything(third) == everything(replica)
    with pytest.raises(LocalError, match="two histories"):
        replica.write(key, [Put(own_prefix(key.public), b"later")], NOW + 9)


def test_a_fork_nobody_signed_is_refused() -> None:
    key, enemy = KEYS[:2]
    honest = chain(key, 3).logs[key.public].entries
    forged = parse_entry([signed(honest[1].link, [Put(own_prefix(key.public), b"x")], enemy).body, bytes(64)])
    with pytest.raises(PeerFault, match="signed by its author"):
        parse_fork(Fork(honest[1], forged).row())
    with pytest.raises(PeerFault, match="cannot both"):
        parse_fork(Fork(honest[0], honest[1]).row())
    with pytest.raises(PeerFault, match="cannot both"):
        parse_fork(Fork(honest[1], honest[1]).row())
    replica = Replica(SPACE)
    assert replica.receive([*honest, forged], NOW + 9).refused[0].is_fault
    assert replica.logs[key.public].fork is None


# ---- refusals -------------------------------------------------------------------------------------------------


def test_keys_of_others_need_a_grant_within_its_times() -> None:
    key = KEYS[0]
    replica = Replica(SPACE)
    with pytest.raises(LocalError, match="own prefix or a grant"):
        replica.write(key, [Put(SHARED + "a", b"1")], NOW)
    with pytest.raises(LocalError, match="own prefix or a grant"):
        replica.write(key, [Put(own_prefix(KEYS[1].public) + "a", b"1")], NOW)
    bad = Grant(SPACE.id, key.public, SHARED, 0, MAX_STAMP).signed(KEYS[1])
    with pytest.raises(LocalError, match="signed by the namespace's owner"):
        replica.write(key, [Present(bad), Put(SHARED + "a", b"1")], NOW)
    replica.write(key, [granted(key, 0, stamp_at(NOW + 10)), Put(SHARED + "a", b"1")], NOW)
    replica.checkpoint(key, NOW)
    replica.write(key, [Put(SHARED + "a", b"2")], NOW + 5)
    with pytest.raises(LocalError, match="own prefix or a grant"):
        replica.write(key, [Put(SHARED + "a", b"3")], NOW + 11)
    assert replica.value(SHARED + "a") == b"2"
    with pytest.raises(LocalError, match="own prefix or a grant"):
        replica.write(KEYS[1], [Put(SHARED + "a", b"3")], NOW + 5)


def test_entries_from_the_future_gaps_and_other_namespaces_are_refused_with_the_reason() -> None:
    key = KEYS[0]
    entries = chain(key, 3).logs[key.public].entries
    replica = Replica(SPACE)
    assert "from the future: 300.0 s" in replica.receive(entries[:1], NOW - 300).refused[0].why
    assert "a gap: 0 is the last" in replica.receive(entries[1:2], NOW).refused[0].why
    assert not replica.receive(entries, NOW + 9).refused
    foreign = Replica(Namespace("other")).receive(entries, NOW + 9).refused
    assert len(foreign) == 3
    assert all(refusal.is_fault for refusal in foreign)


def test_logs_are_bounded_and_a_checkpoint_makes_room() -> None:
    key = KEYS[0]
    limits = Limits(author_bytes=10_000, namespace_bytes=9_500, num_authors=2)
    replica = Replica(SPACE, limits)
    name = own_prefix(key.public) + "a"
    for number in range(8):
        replica.write(key, [Put(name, bytes(100))], NOW + number)
    with pytest.raises(LocalError, match="needs a checkpoint"):
        replica.write(key, [Put(name, bytes(2000))], NOW + 20)
    replica.checkpoint(key, NOW + 100)
    assert replica.logs[key.public].size_bytes < 2000
    replica.write(key, [Put(name, bytes(3000))], NOW + 101)
    with pytest.raises(LocalError, match="namespace is full"):
        replica.write(KEYS[1], [Put(own_prefix(KEYS[1].public), bytes(3300))], NOW + 101)
    replica.write(KEYS[1], [Put(own_prefix(KEYS[1].public), b"")], NOW + 101)
    with pytest.raises(LocalError, match="2 authors already"):
        replica.write(KEYS[2], [Put(own_prefix(KEYS[2].public), b"")], NOW + 101)


def test_a_checkpoint_replaces_the_log_for_newcomers_and_forgets_old_deletions_only() -> None:
    a, b = KEYS[:2]
    replica = Replica(SPACE)
    replica.write(a, [granted(a), Put(SHARED + "old", b"1"), Add(SHARED + "set", b"x"), Count(SHARED + "n", 3)], NOW)
    replica.write(b, [granted(b), Put(SHARED + "k", b"1"), Add(SHARED + "set", b"y")], NOW)
    replica.write(a, [Put(SHARED + "old", None), Put(SHARED + "k", None)], NOW + 1)
    replica.write(a, [Remove(SHARED + "set", replica.tags(SHARED + "set", b"y"))], NOW + 1)
    before = readable(replica)
    later = NOW + TOMBSTONE_S + 10
    replica.checkpoint(a, later)
    assert readable(replica) == before
    assert SHARED + "old" not in replica.names()  # nobody holds an older put
    assert replica.logs[a.public].base == replica.logs[a.public].head == 4
    newcomer = Replica(SPACE)
    synchronise(newcomer, replica, later)
    assert readable(newcomer) == before  # the deletion of b's put at "k" was kept, as was the removal of "y"
    replica.checkpoint(b, later + 1)
    replica.checkpoint(a, later + 2)
    assert SHARED + "k" not in replica.names()  # b's put went first, so its deletion could go
    synchronise(newcomer, replica, later + 2)
    assert readable(newcomer) == before


# ---- malformed bytes ------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_any_change_of_an_entrys_bytes_is_the_peers_fault(seed: int) -> None:
    """Invariant: changed bytes are refused with PeerFault or give an entry whose signature fails; nothing else."""
    rng = random.Random(seed)
    (entry,) = chain(KEYS[0], 1).logs[KEYS[0].public].entries
    body, signature = bytearray(entry.body), bytearray(entry.signature)
    target = rng.choice([body, signature])
    target[rng.randrange(len(target))] ^= 1 << rng.randrange(8)
    try:
        changed = parse_entry([bytes(body), bytes(signature)])
    except PeerFault:
        return
    with pytest.raises(PeerFault):
        entries_module.require_signature(changed)


def test_what_cannot_be_read_cannot_be_written() -> None:
    replica, key = Replica(SPACE), KEYS[0]
    name = own_prefix(key.public)
    for operation in (Put(name + "k" * 300, b""), Put(name, bytes(20_000)), Count(name, 2**61)):
        with pytest.raises(ValueError, match="cannot be written"):
            replica.write(key, [operation], NOW)
    with pytest.raises(ValueError, match="1 to 100"):
        replica.write(key, [], NOW)
