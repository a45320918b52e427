"""Records and where they are held: who may replace what, within which bounds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import InvalidRequest, PeerFault
from shoal.crypto.keys import PrivateKey
from shoal.mesh.dht.finding import Finding
from shoal.mesh.dht.record import (
    MAX_LIFETIME_S,
    Draft,
    Record,
    parse_record,
    record_key,
    require_signature,
    signed,
    topic_of,
)
from shoal.mesh.dht.storage import Bounds, Storage
from shoal.mesh.peer_id import PeerId

KEYS = [PrivateKey(bytes([number]) * 32) for number in range(6)]
NOW = 1_700_000_000
RNG = random.Random(1)


def record(author: int, name: str = "m", sequence: int = 1, expires: int = NOW + 100, value: bytes = b"v") -> Record:
    return signed(Draft("provider", topic_of(name), value), KEYS[author], sequence, expires)


def test_a_record_survives_its_encoding_and_no_change_of_it() -> None:
    good = record(0)
    assert parse_record(good.row()) == good
    require_signature(good)
    for changed in (
        replace(good, value=b"w"), replace(good, sequence=2), replace(good, expires=NOW + 101),
        replace(good, author=PeerId(KEYS[1].public)), replace(good, topic=topic_of("n")), replace(good, kind="value"),
    ):  # fmt: skip
        with pytest.raises(PeerFault):
            require_signature(changed)


def test_keys_are_of_their_kind_and_owner() -> None:
    topic = topic_of("m")
    authors = [PeerId(key.public) for key in KEYS[:2]]
    assert record_key("value", topic, authors[0]) != record_key("value", topic, authors[1])
    assert record_key("provider", topic, authors[0]) == record_key("provider", topic)
    assert record_key("provider", topic) != record_key("peer", topic)
    with pytest.raises(PeerFault, match="own record"):
        parse_record(signed(Draft("peer", topic, b""), KEYS[0], 1, NOW).row())
    with pytest.raises(InvalidRequest):
        signed(Draft("value", topic, b"x" * 1025), KEYS[0], 1, NOW)


def test_only_newer_replaces_and_time_ends_it() -> None:
    storage = Storage(0, Bounds())
    assert storage.put(record(0, sequence=5), NOW) == ""
    assert storage.put(record(0, sequence=5), NOW) == ""
    assert "newer" in storage.put(record(0, sequence=4), NOW)
    assert "newer" in storage.put(record(0, sequence=5, value=b"other"), NOW)
    assert storage.put(record(0, sequence=6, expires=NOW + 50), NOW) == ""
    assert storage.put(record(1), NOW) == ""
    assert "expired" in storage.put(record(2, expires=NOW), NOW)
    assert "expired" in storage.put(record(2, expires=NOW + MAX_LIFETIME_S + 3600), NOW)
    key = record(0).key
    assert {held.sequence for held in storage.get(key, NOW, 9, RNG)} == {6, 1}
    assert len(storage.get(key, NOW, 1, RNG)) == 1
    assert [held.sequence for held in storage.get(key, NOW + 60, 9, RNG)] == [1]
    assert storage.expire(NOW + 60) == 1
    assert len(storage) == 1


Operation = st.tuples(st.integers(0, 5), st.sampled_from("abcdefgh"), st.integers(1, 4), st.integers(1, 90))


@settings(max_examples=60, deadline=None)
@given(st.lists(Operation, max_size=60), st.integers(0, 2**256 - 1))
def test_bounds_hold_after_every_step_and_the_newest_accepted_is_held(steps: list[tuple], own: int) -> None:
    bounds = Bounds(records=10, size_bytes=9 * 300, per_author=3, per_key=3)
    storage, wall = Storage(own, bounds), float(NOW)
    for author, name, sequence, life in steps:
        wall += 5
        made = record(author, name, sequence, int(wall) + life, b"v" * life)
        refusal = storage.put(made, wall)
        held = [one for key in "abcdefgh" for one in storage._records.get(record(0, key).key, {}).values()]
        assert len(held) == len(storage) <= bounds.records
        assert sum(one.size_bytes for one in held) == storage.size_bytes <= bounds.size_bytes
        for number in range(6):
            assert sum(one.author.key == KEYS[number].public for one in held) <= bounds.per_author
        assert all(len(authors) <= bounds.per_key for authors in storage._records.values())
        if made in held:
            assert refusal == ""
        if life % 7 == 0:
            storage.expire(wall)
    storage.expire(wall + 1000)
    assert (len(storage), storage.size_bytes) == (0, 0)


def test_when_full_the_nearer_key_wins() -> None:
    names = sorted("abcdefgh", key=lambda name: int.from_bytes(record(0, name).key, "big"))
    storage = Storage(0, Bounds(records=2))
    assert storage.put(record(0, names[7]), NOW) == ""
    assert storage.put(record(0, names[1]), NOW) == ""
    assert storage.put(record(0, names[3]), NOW) == ""  # pushes out 7
    assert "nearer" in storage.put(record(0, names[5]), NOW)
    assert not storage.get(record(0, names[7]).key, NOW, 9, RNG)


def test_a_finding_believes_signed_records_of_its_key_only() -> None:
    finding = Finding(record(0).key, NOW, 2)
    peers = [PeerId(key.public) for key in KEYS]
    assert finding.take(peers[0], [record(0, sequence=2)])
    assert finding.take(peers[1], [record(0, sequence=1), record(1)])
    assert not finding.take(peers[2], [replace(record(0, sequence=9), value=b"forged")])
    assert not finding.take(peers[2], [record(0, "another")])
    assert finding.take(peers[3], [record(3, expires=NOW - 1)])
    assert finding.is_enough
    assert {(one.author, one.sequence) for one in finding.with_own([record(1, sequence=7)])} == {
        (peers[0], 2), (peers[1], 7),
    }  # fmt: skip
