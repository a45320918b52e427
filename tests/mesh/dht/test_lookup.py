"""The search alone: against naive search in a full network, with liars, and bounded whatever it is told."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.mesh.address import Address
from shoal.mesh.dht.contact import Contact
from shoal.mesh.dht.lookup import Lookup, Shape
from shoal.mesh.dht.table import Limits, Table
from shoal.mesh.fakes import numbered

PEERS = [Contact(Address(numbered(number))) for number in range(600)]


def tables(peers: list[Contact], k: int, seed: int) -> dict[int, Table]:
    rng = random.Random(seed)
    made = {}
    for peer in peers:
        made[peer.place] = table = Table(peer.place, Limits(k=k))
        for other in rng.sample(peers, len(peers)):
            table.saw(other, 0.0)
    return made


NETWORK = tables(PEERS, 8, 1)


def searched(lookup: Lookup, fails: set[int], order: random.Random) -> set[int]:
    """Everybody asked, replies in random order."""
    flying: list[Contact] = []
    asked: set[int] = set()
    while not lookup.is_done:
        for contact in lookup.queries():
            assert contact.place not in asked, "a peer was asked twice"
            asked.add(contact.place)
            flying.append(contact)
        contact = flying.pop(order.randrange(len(flying)))
        if contact.place in fails or contact.place not in NETWORK:
            lookup.failed(contact)
        else:
            lookup.replied(contact, NETWORK[contact.place].closest(lookup.target, 8))
    assert not flying
    return asked


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**256 - 1), st.integers(0, 599), st.integers(0, 10**6))
def test_the_nearest_are_found_as_by_naive_search(target: int, start: int, seed: int) -> None:
    own = PEERS[start].place
    lookup = Lookup(target, own, NETWORK[own].closest(target, 8), Shape(k=8))
    searched(lookup, set(), random.Random(seed))
    naive = sorted((peer for peer in PEERS if peer.place != own), key=lambda peer: peer.place ^ target)
    assert lookup.closest()[:4] == tuple(naive[:4])
    assert lookup.hops() <= 6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**256 - 1), st.integers(0, 599), st.integers(0, 10**6))
def test_paths_are_disjoint_and_find_the_nearest_while_many_fail(target: int, start: int, seed: int) -> None:
    rng = random.Random(seed)
    own = PEERS[start].place
    fails = {peer.place for peer in rng.sample(PEERS, 120)}
    lookup = Lookup(target, own, NETWORK[own].closest(target, 8), Shape(k=8, paths=3))
    searched(lookup, fails, rng)
    alive = [peer for peer in PEERS if peer.place != own and peer.place not in fails]
    nearest = min(alive, key=lambda peer: peer.place ^ target)
    assert nearest in lookup.closest()


def test_a_flood_of_near_strangers_ends_by_the_bound() -> None:
    shape = Shape(k=8, paths=2, max_queries=30)
    lookup = Lookup(0, PEERS[0].place, PEERS[1:9], shape)
    number = 10**6
    while not lookup.is_done:
        for contact in lookup.queries():
            told = [Contact(Address(numbered(number + i))) for i in range(20)]
            number += 20
            told.sort(key=lambda other: other.place)
            lookup.replied(contact, told)
    assert lookup.num_queries <= 60
    assert len(lookup.closest()) == 8


def test_nobody_to_ask_is_done_at_once() -> None:
    lookup = Lookup(7, 1, (), Shape())
    assert lookup.queries() == []
    assert lookup.is_done
    assert lookup.closest() == ()
    assert lookup.hops() == 0
