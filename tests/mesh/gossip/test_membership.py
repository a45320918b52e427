"""The state machine of membership: who is believed about whom, and when a silence becomes a death."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.mesh.address import Address
from shoal.mesh.fakes import numbered
from shoal.mesh.gossip.claims import Accusation, Author, Claim, Load, Statement
from shoal.mesh.gossip.membership import MAX_CLAIMS, AskOthers, Membership, Probe, Settings, Tell
from shoal.mesh.gossip.outbox import CAPACITY, SENDS, Outbox
from shoal.mesh.gossip.roster import REACH, RINGS, Member, RingRoster
from shoal.mesh.gossip.suspicion import Awareness, Damping, suspicion_s

PEERS = [numbered(number) for number in range(40)]


def says(number: int, incarnation: int = 1, sequence: int = 0, left: bool = False) -> Statement:
    return Statement(Address(PEERS[number]), incarnation, sequence, left)


def accuses(accuser: int, number: int, incarnation: int = 1) -> Accusation:
    return Accusation(PEERS[number], incarnation, PEERS[accuser])


def member_of(count: int) -> Membership:
    node = Membership(
        Author(PEERS[0], lambda purpose, message: b""), says(0), RingRoster(), Settings(), random.Random(1)
    )
    node.start(0.0)
    for number in range(1, count):
        node.take(says(number), 0.0)
    return node


def status(node: Membership, number: int) -> str:
    member = node.roster.get(PEERS[number])
    return member.status if member else "unknown"


def test_a_silent_peer_is_asked_after_accused_and_dead_in_time() -> None:
    node = member_of(10)
    probes = [action for action in node.tick(2.0) if isinstance(action, Probe)]
    assert len(probes) == 1
    target = PEERS.index(probes[0].peer)
    (ask,) = node.silent(probes[0].peer)
    assert isinstance(ask, AskOthers)
    assert len(ask.helpers) == 3
    assert not {PEERS[0], PEERS[target]} & set(ask.helpers)
    node.verdict(ask.peer, False, 0, 3.0)
    assert status(node, target) == "suspect"
    node.tick(3.0 + 5.9)
    assert status(node, target) == "suspect", "one accuser: three times two periods"
    node.tick(3.0 + 6.1)
    assert status(node, target) == "dead"
    assert [(member.peer, member.status) for member in node.changes()][-2:] == [
        (PEERS[target], "suspect"), (PEERS[target], "dead"),
    ]  # fmt: skip


def test_more_accusers_shorten_a_suspicion_and_a_verdict_with_an_answer_makes_none() -> None:
    node = member_of(10)
    node.verdict(PEERS[3], True, 0, 0.0)
    assert status(node, 3) == "alive"
    for accuser in (4, 5, 6):
        node.take(accuses(accuser, 3), 1.0)
    node.tick(1.0 + 2.1)
    assert status(node, 3) == "dead"
    assert suspicion_s(10_000, 1, 1.0) == 12.0
    assert suspicion_s(10_000, 3, 1.0) == suspicion_s(10_000, 9, 1.0) == 4.0


def test_only_a_newer_incarnation_of_its_own_brings_a_peer_back() -> None:
    node = member_of(10)
    node.take(accuses(4, 3), 1.0)
    node.take(says(3, sequence=9), 1.1)
    assert status(node, 3) == "suspect", "a new load is no refutation"
    node.take(says(3, incarnation=2), 1.2)
    assert status(node, 3) == "alive"
    node.take(accuses(5, 3, incarnation=1), 1.3)
    assert status(node, 3) == "alive", "that was said of its earlier incarnation"
    node.take(accuses(5, 3, incarnation=2), 1.3)
    node.tick(60.0)
    assert status(node, 3) == "dead"
    node.take(accuses(6, 3, incarnation=2), 61.0)
    node.take(says(3, incarnation=2, sequence=5), 61.0)
    assert status(node, 3) == "dead"
    node.take(says(3, incarnation=3), 61.0)
    assert status(node, 3) == "alive"


def test_the_accused_refutes_and_whoever_talks_to_a_suspect_tells_it() -> None:
    node = member_of(10)
    node.take(accuses(4, 0), 1.0)
    assert node.own.incarnation == 2
    assert node.own in [claim for action in node.tick(1.0) if isinstance(action, Tell) for claim in action.claims]
    assert node.awareness.factor == 2
    other = member_of(10)
    other.take(accuses(4, 3), 1.0)
    assert other.claims_for(PEERS[3])[:2] == (other.own, accuses(4, 3))
    assert status(other, 0) == "alive"


def test_an_earlier_life_of_this_peer_is_answered_with_a_newer_one() -> None:
    node = member_of(5)
    node.take(says(0, incarnation=7, left=True), 1.0)
    assert node.own.incarnation == 8
    assert not node.own.left


def test_a_goodbye_is_clean_and_final_until_the_next_life() -> None:
    node = member_of(10)
    node.take(says(3, sequence=1, left=True), 1.0)
    assert status(node, 3) == "left"
    node.take(accuses(4, 3), 1.1)
    assert status(node, 3) == "left"
    assert len(node.roster) == 9
    told = node.leave(2.0)
    assert all(isinstance(action, Tell) and action.claims == (node.own,) for action in told)
    assert node.own.left
    assert len(told) >= RINGS - 3


def test_only_watchers_accuse_and_liars_are_not_heard() -> None:
    node = member_of(40)
    roster = node.roster
    eligible = [number for number in range(1, 40) if number != 3 and roster.may_accuse(PEERS[number], PEERS[3])]
    others = [number for number in range(1, 40) if number != 3 and number not in eligible]
    assert eligible
    assert others
    node.take(accuses(others[0], 3), 1.0)
    assert status(node, 3) == "alive"
    liar = eligible[0]
    for life in range(1, 4):
        node.take(accuses(liar, 3, incarnation=life), float(life))
        assert status(node, 3) == "suspect"
        node.take(says(3, incarnation=life + 1), life + 0.5)
    node.take(accuses(liar, 3, incarnation=4), 5.0)
    assert status(node, 3) == "alive", "refuted three times"
    node.take(accuses(eligible[1], 3, incarnation=4), 5.0)
    assert status(node, 3) == "suspect"


def test_who_comes_and_goes_is_damped_for_a_while() -> None:
    node = member_of(10)
    for life in range(1, 4):
        node.take(says(3, incarnation=life, sequence=1, left=True), life * 10.0)
        node.take(says(3, incarnation=life + 1), life * 10.0 + 5)
    assert node.flaps.is_damped(PEERS[3], 40.0)
    assert not node.flaps.is_damped(PEERS[4], 40.0)
    assert not node.flaps.is_damped(PEERS[3], 600.0)
    small = Damping(capacity=3)
    for number in range(10):
        small.penalise(number, 0.0)
    assert len(small._penalties) == 3


def test_a_slow_peer_doubts_itself_first() -> None:
    node = member_of(10)
    node.verdict(PEERS[3], True, 2, 1.0)
    assert node.awareness.factor == 2
    node.tick(1.0)
    assert node._next_probe == 1.0 + 2 * Settings().period_s
    node.answered(PEERS[3])
    assert node.awareness.factor == 1
    worst = Awareness()
    for _ in range(20):
        worst.unwell()
    assert worst.factor == 9


def test_loads_are_published_within_the_budget_and_the_last_one_wins() -> None:
    node = member_of(40)
    for queue in range(5):
        node.state(replace(node.own, load=Load(queue=queue)), 1.0)
    assert (node.own.load.queue, node.own.sequence) == (0, 1)
    node.tick(1.0 + 40 / Settings().loads_per_s - 0.1)
    assert node.own.load.queue == 0
    node.tick(1.0 + 40 / Settings().loads_per_s)
    assert (node.own.load.queue, node.own.sequence) == (4, 2)


def test_the_dead_are_forgotten_after_their_tombstones() -> None:
    node = member_of(10)
    node.take(says(3, sequence=1, left=True), 1.0)
    node.tick(500.0)
    assert status(node, 3) == "left"
    node.tick(900.0)
    assert status(node, 3) == "unknown"


Step = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 3), st.integers(0, 2), st.sampled_from("salLt"))


@settings(max_examples=100, deadline=None)
@given(st.lists(Step, max_size=60))
def test_any_claims_keep_the_roster_consistent_and_versions_growing(
    steps: list[tuple[int, int, int, int, str]],
) -> None:
    node, now, newest = member_of(5), 1.0, dict[int, tuple[int, bool, int]]()
    for one, two, incarnation, sequence, kind in steps:
        now += 0.7
        claim: Claim = says(one, incarnation, sequence, kind == "l") if kind in "sl" else accuses(two, one, incarnation)
        if kind == "t":
            for action in node.tick(now):
                assert not isinstance(action, (Probe, Tell)) or len(action.claims) <= MAX_CLAIMS
        else:
            node.take(claim, now)
        for number in range(9):
            member = node.roster.get(PEERS[number])
            if member is not None:
                assert member.statement.version >= newest.get(number, (0, False, 0))
                newest[number] = member.statement.version
                assert (member.status == "suspect") <= bool(member.accusations)
        present = [member for member in node.roster.members() if member.is_present]
        assert len(node.roster) == len(present)
        assert all(node.due <= member.deadline for member in present if member.status == "suspect")
        marks = [0] * 256
        for member in node.roster.members():
            marks[member.peer.key[0]] ^= member.mark()
        assert marks == node.marks()
        assert status(node, 0) == "alive"


@settings(max_examples=50, deadline=None)
@given(st.lists(Step, max_size=40), st.lists(Step, max_size=40))
def test_two_rosters_agree_after_syncing_both_ways(ours: list[tuple], theirs: list[tuple]) -> None:
    nodes = []
    for steps in (ours, theirs):
        node = member_of(1)
        for one, _, incarnation, sequence, kind in steps:
            node.take(says(one + 1, incarnation, sequence, kind == "l"), 1.0)
        nodes.append(node)
    for here, there in (nodes, nodes[::-1]):
        for claim in here.differing(there.marks(), 512):
            there.take(claim, 2.0)
    assert nodes[0].marks() == nodes[1].marks()


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 39), min_size=1), st.sets(st.integers(0, 39)))
def test_rings_name_the_same_watchers_whatever_the_order_of_coming(present: set[int], gone: set[int]) -> None:
    one, two = RingRoster(), RingRoster()
    for number in present:
        one.put(Member(says(number), "alive", 0.0))
    for number in sorted(present | gone, reverse=True):
        two.put(Member(says(number), "alive", 0.0))
    for number in sorted(gone - present):
        two.put(Member(says(number), "dead", 0.0))
    for number in present:
        watched = one.watched_by(PEERS[number])
        assert watched == two.watched_by(PEERS[number])
        assert PEERS[number] not in watched
        is_small = len(present) <= RINGS * REACH
        assert min(RINGS, len(present) - 1) - (not is_small) <= len(watched) <= RINGS
        assert all(one.may_accuse(PEERS[number], other) for other in watched)


def test_the_outbox_sends_each_a_few_times_urgent_first_and_is_bounded() -> None:
    box = Outbox()
    box.put(says(1), is_urgent=False)
    box.put(says(2), is_urgent=True)
    box.put(says(2, sequence=1), is_urgent=True)
    assert box.take(1, 5) == [says(2, sequence=1)]
    assert len(box) == 2
    sent = [claim for _ in range(20) for claim in box.take(2, 5)]
    assert sent.count(says(1)) == 5
    assert sent.count(says(2, sequence=1)) == 4
    assert not box.has_urgent
    for number in range(CAPACITY + 50):
        box.put(Accusation(PEERS[1], 1, numbered(number)), is_urgent=False)
    assert len(box) == CAPACITY
    assert SENDS >= RINGS, "every neighbour is told once"


def test_made_up_members_are_bounded_and_push_out_nobody_who_lives() -> None:
    node = Membership(
        Author(PEERS[0], lambda purpose, message: b""), says(0), RingRoster(), Settings(members=20), random.Random(1)
    )
    node.start(0.0)
    for number in range(1, 40):
        node.take(says(number), 0.0)
    assert node.roster.size == 20
    assert status(node, 19) == "alive"
    assert not node.is_news(says(30))
    node.take(says(7, left=True), 1.0)
    node.take(says(30), 2.0)
    assert status(node, 30) == "alive", "who has left makes room"
    assert status(node, 7) == "unknown"
    node.welcome(PEERS[35])
    node.take(says(35), 3.0)
    assert status(node, 35) == "alive", "whoever is here itself is heard"
    assert node.roster.size == 20
