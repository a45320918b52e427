"""What a peer may do to the store by what it says: nothing that costs more time or memory than it sent bytes for."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode
from shoal.core.errors import Overloaded, PeerFault, Unavailable
from shoal.crypto.keys import PrivateKey
from shoal.mesh import parse
from shoal.mesh.fakes import LocalMesh
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import Ground, Namespace, Store, messages, own_prefix
from shoal.mesh.store.entry import Add, Checkpoint, Link, Put, SlotRow, parse_entry, signed
from shoal.mesh.store.heads import FIRST, LAST, PRINT_BYTES, WAYS, Printed, Range
from shoal.mesh.store.log import Fork
from shoal.mesh.store.replica import Limits, Replica
from shoal.mesh.store.stamp import stamp_at

KEY = PrivateKey(bytes(32))
SPACE = Namespace("s")
NOW = 1_700_000_000.0


def link(sequence: int, key: PrivateKey = KEY) -> Link:
    return Link(SPACE.id, key.public, sequence, bytes(32), stamp_at(NOW) + sequence)


def crumbs(count: int, sequence: int = 2, key: PrivateKey = KEY) -> Any:
    """A checkpoint of `count` elements of one byte: what takes the most memory for its size."""
    adds = tuple((1, place % 100, bytes([place % 256])) for place in range(count))
    rows = (SlotRow(own_prefix(key.public) + "s", None, adds, (), 0),)
    return signed(link(sequence, key), [Checkpoint(rows, ())], key)


def test_a_bundle_of_a_million_crumbs_is_refused_before_it_is_read() -> None:
    """4 MB of one-byte values took the event loop a second; a manifest of 37 MB took it ten."""
    data = cbor2.dumps([SPACE.id, [0] * 4_000_000, [], False], canonical=True)
    began = time.process_time()
    with pytest.raises(PeerFault, match="expected at most"):
        messages.parse_bundle(data, SPACE.id)
    body = cbor2.dumps([SPACE.id, KEY.public, 1, bytes(32), 5, [[5, [0] * 1_000_000, []]]], canonical=True)
    with pytest.raises(PeerFault, match=r"values in a message|at most"):
        parse_entry([body, bytes(64)])
    assert time.process_time() - began < 0.2


@given(st.binary(max_size=200))
def test_values_are_counted_as_they_are_read(junk: bytes) -> None:
    parse.count(junk, 1000)  # never another error than PeerFault, for any bytes
    value = [1, [junk, "ä" * 30, {"a": [None, True, 1.5, 2**40]}], -300]
    assert parse.count(encode(value), 13) == 13
    with pytest.raises(PeerFault):
        parse.count(encode(value), 12)


def test_room_is_counted_in_memory_not_in_bytes() -> None:
    """A megabyte of one-byte elements takes fifty, of which the limit knew nothing."""
    entry = crumbs(10_000)
    tracemalloc.start()
    taken = parse_entry(entry.row())
    replica = Replica(SPACE)
    replica.receive([taken], NOW)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert replica.logs[KEY.public].head == 2
    assert held < 2 * taken.cost_bytes
    assert taken.cost_bytes > 20 * taken.size_bytes
    small = Replica(SPACE, Limits(namespace_bytes=taken.cost_bytes - 1))
    assert "namespace is full" in small.receive([taken], NOW).refused[0].why


def test_proofs_of_cheating_take_room_too() -> None:
    """An author may make a fork of two entries of a megabyte; with many authors that was memory without end."""
    keys = [PrivateKey(bytes([number]) * 32) for number in range(1, 9)]
    one = [signed(link(1, key), [Put(own_prefix(key.public) + "a", bytes(16_000))], key) for key in keys]
    other = [signed(link(1, key), [Put(own_prefix(key.public) + "b", bytes(16_000))], key) for key in keys]
    forks = [Fork(*pair) for pair in zip(one, other, strict=True)]
    replica = Replica(SPACE, Limits(namespace_bytes=100_000))
    received = replica.receive([], NOW, forks)
    assert len(received.forks) == 2
    assert sum(log.size_bytes for log in replica.logs.values()) <= 100_000
    assert len(replica.logs) == 2


def test_whoever_asks_for_the_same_range_many_times_is_at_fault() -> None:
    printed = Printed(Range(FIRST, LAST), bytes(PRINT_BYTES))
    with pytest.raises(PeerFault, match="do not overlap"):
        messages.parse_compare(messages.compare_bytes(SPACE.id, [printed] * 2), SPACE.id)


def test_whoever_splits_ranges_without_end_is_left() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        mesh = LocalMesh(clock)
        me, liar = mesh.join(), mesh.join()
        asked = 0

        async def split(incoming: Any, body: memoryview) -> bytes:
            nonlocal asked
            asked += 1
            return messages.findings_bytes([_split(item) for item in messages.parse_compare(body, SPACE.id)])

        liar.unary("store.compare", split)
        store = Store(Ground(me, me, clock, KEY, lambda: [liar.peer]), SPACE)
        task = asyncio.ensure_future(store.synchronise(liar.peer))
        while not task.done():
            await clock.advance(0.1)
        with pytest.raises(PeerFault, match="ranges within ranges"):
            task.result()
        assert asked < 200

    asyncio.run(asyncio.wait_for(scene(), 30))


def _split(asked: Printed) -> tuple[Printed, ...]:
    low, high = (int.from_bytes(edge, "big") for edge in (asked.range.low, asked.range.high))
    step = (high - low) // WAYS
    edges = [(low + step * part, low + step * (part + 1) - 1) for part in range(WAYS)]
    return tuple(
        Printed(Range(first.to_bytes(32, "big"), last.to_bytes(32, "big")), bytes([part] * PRINT_BYTES))
        for part, (first, last) in enumerate(edges)
    )


def test_a_forged_entry_ends_the_reading_of_its_bundle() -> None:
    """Eight thousand forged signatures cost a second of checking; now the first one ends it."""

    async def scene() -> None:
        clock = VirtualClock(wall=NOW)
        me = LocalMesh(clock).join(PeerId(KEY.public))
        store = Store(Ground(me, me, clock, KEY, tuple), SPACE)
        keys = [PrivateKey(number.to_bytes(32, "big")) for number in range(1, 301)]
        forged = [signed(link(1, key), [Add(own_prefix(key.public) + "a", b"")], key) for key in keys]
        forged = [replace(entry, signature=bytes(64)) for entry in forged]
        with pytest.raises(PeerFault, match="signed by its author"):
            await store.take(messages.Bundle(tuple(forged), (), False))
        assert store.num_refused == 64

    asyncio.run(scene())


class Crowd:
    """Stores of several peers, all of them neighbours."""

    def __init__(self, count: int) -> None:
        self.clock = VirtualClock(wall=NOW)
        mesh = LocalMesh(self.clock)
        self.keys = [PrivateKey(bytes([number]) * 32) for number in range(1, count + 1)]
        self.peers = [PeerId(key.public) for key in self.keys]
        self.locals = [mesh.join(peer) for peer in self.peers]
        self.stores = [self._store(number) for number in range(count)]

    def _store(self, number: int) -> Store:
        local, others = self.locals[number], [peer for peer in self.peers if peer != self.peers[number]]
        return Store(Ground(local, local, self.clock, self.keys[number], lambda: others), SPACE)

    async def timed(self, work: Any) -> Any:
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(20):
                await asyncio.sleep(0)
            await self.clock.advance(0.1)
        return task.result()


def test_one_peer_alone_cannot_hide_the_own_log_after_damage() -> None:
    """What was written after believing it was a second history, and everybody else took its author for a cheat."""

    async def scene() -> None:
        crowd = Crowd(4)
        me, liar, *others = crowd.stores
        name = own_prefix(crowd.keys[0].public) + "x"
        await me.write(Put(name, b"1"))
        for store in others:
            await crowd.timed(store.synchronise(crowd.peers[0]))
        me.replica, me.damage = Replica(SPACE), "the disk forgot"
        await crowd.timed(me.synchronise(crowd.peers[1]))
        with pytest.raises(Unavailable, match="waits until a peer"):
            await me.write(Put(name, b"2"))
        for peer in crowd.peers[2:]:
            await crowd.timed(me.synchronise(peer))
        await me.write(Put(name, b"2"))
        await crowd.timed(others[0].synchronise(crowd.peers[0]))
        log = others[0].replica.logs[crowd.keys[0].public]
        assert (log.head, log.fork, liar.replica.logs.get(crowd.keys[0].public)) == (2, None, None)

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_one_peer_pushes_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.mesh.store.store.PUSH_BURST", 1000.0)
    monkeypatch.setattr("shoal.mesh.store.store.PUSH_RATE", 100.0)

    async def scene() -> None:
        crowd = Crowd(2)
        entry = signed(link(1), [Put(own_prefix(KEY.public) + "a", bytes(500))], KEY)
        body = messages.bundle_bytes(SPACE.id, messages.Bundle((entry,), (), False))
        push = crowd.locals[0].call
        await crowd.timed(push(crowd.peers[1], "store.push", body))
        with pytest.raises(Overloaded, match="more than is taken"):
            await crowd.timed(push(crowd.peers[1], "store.push", body))
        await crowd.clock.advance(10.0)
        await crowd.timed(push(crowd.peers[1], "store.push", body))

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_peer_that_always_has_more_is_left_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An author that signs a new entry for every answer kept a comparison, and the disk, busy for ever."""
    monkeypatch.setattr("shoal.mesh.store.store.MAX_CALLS", 20)

    async def scene() -> None:
        crowd = Crowd(1)
        made: list[Any] = []

        async def more(peer: PeerId, method: str, body: bytes, options: Any) -> memoryview:
            before = made[-1].hash if made else bytes(32)
            place = replace(link(len(made) + 1), previous=before)
            made.append(signed(place, [Put(own_prefix(KEY.public) + "a", bytes(9))], KEY))
            return memoryview(messages.bundle_bytes(SPACE.id, messages.Bundle((made[-1],), (), True)))

        store = crowd.stores[0]
        store._ground = replace(store._ground, caller=SimpleNamespace(call=more))
        await store._fetch(crowd.peers[0], {KEY.public: 1})
        assert len(made) == store.replica.logs[KEY.public].head == 20

    asyncio.run(asyncio.wait_for(scene(), 30))
