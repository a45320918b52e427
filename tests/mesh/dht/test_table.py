"""Buckets against naive search; who stays, who goes, and how many of one network."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.mesh.address import Address
from shoal.mesh.dht.contact import Contact, has_worked, place, subnets, worked
from shoal.mesh.dht.table import FAILURES, QUIET_S, Limits, Table
from shoal.mesh.fakes import numbered


def contact(number: int, *udp: str) -> Contact:
    return Contact(Address(numbered(number), udp))


PEERS = [contact(number) for number in range(400)]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 399), max_size=300), st.integers(0, 2**256 - 1), st.integers(1, 40), st.booleans())
def test_closest_is_what_sorting_everything_gives(chosen: set[int], target: int, count: int, is_near: bool) -> None:
    own = place(numbered(1000))
    table = Table(own, Limits(k=1000))
    for number in sorted(chosen):
        table.saw(PEERS[number], 0.0)
    target = PEERS[min(chosen)].place ^ 1 if is_near and chosen else target
    naive = sorted((PEERS[number] for number in chosen), key=lambda peer: peer.place ^ target)
    assert table.closest(target, count) == naive[:count]
    assert len(table) == len(chosen)


def test_full_buckets_keep_the_old_and_hold_the_k_of_each_distance() -> None:
    own = place(numbered(1000))
    table = Table(own, Limits(k=5))
    for peer in PEERS:
        table.saw(peer, 0.0)
    by_index: dict[int, list[Contact]] = {}
    for peer in PEERS:
        by_index.setdefault((peer.place ^ own).bit_length(), []).append(peer)
    assert set(table) == {peer for group in by_index.values() for peer in group[:5]}


def full_bucket() -> tuple[Table, list[Contact]]:
    own = place(numbered(1000))
    far = [peer for peer in PEERS if (peer.place ^ own).bit_length() == 256]
    table = Table(own, Limits(k=3))
    for peer in far[:3]:
        assert table.saw(peer, 0.0) is None
    return table, far


def test_a_newcomer_asks_for_a_ping_of_the_quietest_once() -> None:
    table, far = full_bucket()
    assert table.saw(far[3], QUIET_S / 2) is None
    assert table.saw(far[3], QUIET_S) == far[0]
    assert table.saw(far[4], QUIET_S) is None  # already asked for
    table.saw(far[0], QUIET_S)  # it answered: it stays, and is the freshest
    assert table.saw(far[4], QUIET_S + 1) == far[1]
    assert set(table) == set(far[:3])


def test_who_does_not_answer_makes_room_for_the_last_who_waited() -> None:
    table, far = full_bucket()
    for peer in far[3:6]:
        table.saw(peer, QUIET_S)
    for _ in range(FAILURES):
        assert far[0] in table
        table.failed(far[0])
    assert set(table) == {far[1], far[2], far[5]}


def test_one_network_holds_few_places_of_a_bucket_and_of_the_table() -> None:
    own = place(numbered(1000))
    table = Table(own, Limits(k=20, per_subnet=2, per_table=3))
    for number in range(100):
        table.saw(contact(number, f"8.8.8.{number}:1", f"192.168.1.{number}:1"), 0.0)
    assert len(table) == 3
    for number in range(100, 200):
        table.saw(contact(number, f"192.168.1.{number}:1"), 0.0)
    assert len(table) > 40
    relayed = [Contact(Address(numbered(number), relays=("https://r",))) for number in range(200, 400)]
    table = Table(own, Limits(k=20))
    for peer in relayed:
        table.saw(peer, 0.0)
    far = [peer for peer in table if (peer.place ^ own).bit_length() == 256]
    assert len(far) == 10


def test_a_network_is_given_back_when_its_peer_leaves() -> None:
    table = Table(place(numbered(1000)), Limits(k=20, per_subnet=1, per_table=1))
    first, second = contact(1, "8.8.8.1:1"), contact(2, "8.8.8.2:1")
    table.saw(first, 0.0)
    table.saw(second, 0.0)
    assert list(table) == [first]
    for _ in range(FAILURES):
        table.failed(first)
    table.saw(second, 1.0)
    assert list(table) == [second]


def test_refresh_names_a_place_in_each_bucket_that_nobody_looked_into() -> None:
    own = place(numbered(1000))
    table = Table(own, Limits())
    for peer in PEERS:
        table.saw(peer, 0.0)
    stale = table.stale(100.0, 50.0)
    lengths = {(target ^ own).bit_length() for target in stale}
    assert lengths == {(peer.place ^ own).bit_length() for peer in PEERS}
    table.looked(stale[0], 100.0)
    assert table.stale(100.0, 50.0) == stale[1:]


def test_subnets_read_public_addresses_only() -> None:
    address = Address(numbered(1), ("8.8.4.4:5", "10.0.0.1:5", "nonsense"), ("[2001:4860:4860::1]:7",), ("https://r",))
    assert subnets(address) == {"8.8.4.0/24", "2001:4860:4860::/48"}


def test_work_is_checked_and_bound_to_the_peer() -> None:
    rng = random.Random(5)
    done = worked(Address(numbered(1)), 10)
    assert has_worked(done, 10)
    stolen = [Contact(Address(numbered(rng.randrange(10**6))), done.work) for _ in range(20)]
    assert not any(has_worked(other, 10) for other in stolen)
