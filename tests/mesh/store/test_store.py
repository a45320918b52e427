"""Stores of several peers hear of each other's writes, catch up after partitions, and outlive kill -9 and bad disks."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.clock import VirtualClock
from shoal.core.errors import PeerFault, Unavailable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.calls import CallOptions
from shoal.mesh.fakes import LocalMesh
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import Ground, Namespace, Options, Store, messages, own_prefix
from shoal.mesh.store.disk import Disk
from shoal.mesh.store.entry import Add, Count, Put, signed
from shoal.mesh.store.heads import Heads
from shoal.mesh.store.registry import ModelOffer, Registry

SPACE = Namespace("test")


class Swarm:
    def __init__(self, count: int) -> None:
        self.clock = VirtualClock()
        self.mesh = LocalMesh(self.clock)
        self.keys = [PrivateKey(random.Random(number).randbytes(32)) for number in range(count)]
        self.peers = [PeerId(key.public) for key in self.keys]
        self.stores = [self.store(number) for number in range(count)]

    def store(self, number: int, path: Path | None = None) -> Store:
        peer = self.peers[number]
        local = self.mesh.join(peer)

        def others() -> list[PeerId]:
            return [other for other in self.peers if other != peer]

        ground = Ground(local, local, self.clock, self.keys[number], others, path)
        return Store(ground, SPACE, Options(seed=number))

    async def timed(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(60):
                await asyncio.sleep(0)
            if not task.done():
                await self.clock.advance(0.5)
        return task.result()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def test_writes_spread_at_once_and_what_was_missed_comes_by_comparing() -> None:
    async def scene() -> None:
        swarm = Swarm(8)
        loops = [asyncio.ensure_future(store.run()) for store in swarm.stores]
        a, b = swarm.stores[0], swarm.stores[1]
        name = own_prefix(swarm.keys[0].public) + "x"
        swarm.mesh.partition(swarm.peers[:2], swarm.peers[2:])
        await swarm.timed(a.write(Put(name, b"1"), Add(name, b"e"), Count(name, 2)))
        await swarm.clock.advance(30)
        assert b.replica.value(name) == b"1"
        assert swarm.stores[5].replica.value(name) is None
        await swarm.timed(a.remove(name, b"e"))
        swarm.mesh.heal()
        await swarm.clock.advance(60)
        for store in swarm.stores:
            assert (store.replica.value(name), store.replica.elements(name), store.replica.count(name)) == (
                b"1", frozenset(), 2,
            )  # fmt: skip
        for loop in loops:
            loop.cancel()

    run(scene())


def test_a_cheat_is_found_out_by_two_peers_who_heard_different_things() -> None:
    async def scene() -> None:
        swarm = Swarm(4)
        cheat, a, b, c = swarm.stores
        name = own_prefix(swarm.keys[0].public) + "x"
        first = await cheat.write(Put(name, b"0"))
        said = await cheat.write(Put(name, b"to a"))
        lie = signed(said.link, [Put(name, b"to b")], swarm.keys[0])
        now = swarm.clock.wall()
        a.replica.receive([first, said], now)
        b.replica.receive([first, lie], now)
        await swarm.timed(a.synchronise(swarm.peers[2]))
        await swarm.timed(c.synchronise(swarm.peers[1]))
        for store in (a, b, c):
            log = store.replica.logs[swarm.keys[0].public]
            assert log.fork is not None
            assert (log.fork.sequence, log.head, store.replica.value(name)) == (2, 1, b"0")
        await swarm.timed(a.synchronise(swarm.peers[2]))

    run(scene())


def test_comparing_costs_little_where_little_differs() -> None:
    async def scene() -> None:
        swarm = Swarm(2)
        a, b = swarm.stores
        for number in range(1000):
            key = PrivateKey(random.Random(number + 50).randbytes(32))
            entries = a.replica.write(key, [Put(own_prefix(key.public), b"1")], swarm.clock.wall()).accepted
            b.replica.receive(entries, swarm.clock.wall(), is_trusted=True)
        await swarm.timed(a.synchronise(swarm.peers[1]))
        calls, size = swarm.mesh.num_calls, swarm.mesh.size_bytes
        assert calls == 1
        await swarm.timed(b.write(Put(own_prefix(swarm.keys[1].public), b"2")))
        await swarm.timed(a.synchronise(swarm.peers[1]))
        assert a.replica.value(own_prefix(swarm.keys[1].public)) == b"2"
        assert swarm.mesh.num_calls - calls <= 6
        assert swarm.mesh.size_bytes - size < 6000

    run(scene())


def test_forged_entries_end_the_call_and_change_nothing() -> None:
    async def scene() -> None:
        swarm = Swarm(3)
        a, b, _ = swarm.stores
        name = own_prefix(swarm.keys[0].public)
        entry = await a.write(Put(name, b"1"))
        forged = messages.bundle_bytes(
            SPACE.id, messages.bundled([signed(entry.link, [Put(name, b"2")], swarm.keys[2])], [])
        )
        caller = swarm.mesh.at(swarm.peers[2])
        with pytest.raises(PeerFault, match="signed by its author"):
            await swarm.timed(caller.call(swarm.peers[1], "store.push", forged, CallOptions()))
        other = messages.bundle_bytes(Namespace("other").id, messages.bundled([entry], []))
        with pytest.raises(PeerFault, match="another namespace"):
            await swarm.timed(caller.call(swarm.peers[1], "store.push", other, CallOptions()))
        assert b.replica.logs == {}

    run(scene())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**32), st.sampled_from(["compare", "wanted", "bundle", "findings"]))
def test_any_bytes_are_a_message_or_the_peers_fault(junk: bytes, seed: int, kind: str) -> None:
    """Invariant: each parsing function returns its type or raises PeerFault, for junk and for changed good messages."""
    asked = Heads({}).all()
    good = {
        "compare": messages.compare_bytes(SPACE.id, [asked]),
        "wanted": messages.wanted_bytes(SPACE.id, {bytes(32): 1}),
        "bundle": messages.bundle_bytes(SPACE.id, messages.bundled([], [])),
        "findings": messages.findings_bytes([Heads({}).answer(asked)]),
    }[kind]
    rng = random.Random(seed)
    changed = bytearray(good)
    changed[rng.randrange(len(changed))] = rng.randrange(256)
    for data in (junk, bytes(changed), good[: rng.randrange(len(good))]):
        try:
            match kind:
                case "compare":
                    messages.parse_compare(data, SPACE.id)
                case "wanted":
                    messages.parse_wanted(data, SPACE.id)
                case "bundle":
                    messages.parse_bundle(data, SPACE.id)
                case _:
                    messages.parse_findings(data, [asked])
        except PeerFault:
            continue


def test_peers_and_their_prices_are_listed_cheapest_first_and_withdrawn() -> None:
    async def scene() -> None:
        swarm = Swarm(2)
        one, other = (Registry(store, peer) for store, peer in zip(swarm.stores, swarm.peers, strict=True))
        await swarm.timed(one.publish((ModelOffer("m", b"d", 20), ModelOffer("n", b"", 1))))
        await swarm.timed(other.publish((ModelOffer("m", b"d", 10),)))
        await swarm.timed(swarm.stores[0].write(Put(own_prefix(swarm.keys[0].public) + "models/bad", b"junk")))
        await swarm.timed(swarm.stores[0].synchronise(swarm.peers[1]))
        found = [(listing.peer, listing.offer.microcents_per_mtok) for listing in other.listings("m")]
        assert found == [(swarm.peers[1], 10), (swarm.peers[0], 20)]
        assert one.listings() == other.listings()
        await swarm.timed(one.publish((ModelOffer("m", b"d", 20),)))
        assert [listing.offer.model for listing in one.listings()] == ["m", "m"]

    run(scene())


# ---- disk -----------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from pathlib import Path
from shoal.core.clock import SystemClock
from shoal.crypto.keys import PrivateKey
from shoal.mesh.fakes import LocalMesh
from shoal.mesh.store import Ground, Namespace, Store, own_prefix
from shoal.mesh.store.entry import Put

async def main():
    key, clock = PrivateKey(bytes(range(32))), SystemClock()
    local = LocalMesh(clock).join()
    store = Store(Ground(local, local, clock, key, list, Path({path!r})), Namespace("test"))
    await store.load()
    name = own_prefix(key.public)
    for number in range(1_000_000):
        await store.write(*[Put(f"{{name}}{{place}}", str(number).encode()) for place in range(20)])
        print(number, flush=True)
asyncio.run(main())
"""


async def _opened(path: Path) -> tuple[Store, str]:
    swarm = Swarm(0)
    swarm.keys, swarm.peers = [PrivateKey(bytes(range(32)))], [PeerId(PrivateKey(bytes(range(32))).public)]
    store = swarm.store(0, path)
    return store, await store.load()


def test_kill_9_in_the_middle_of_writes_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    for _ in range(2):
        source = WRITER.format(path=str(path))
        process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        confirmed = -1
        for line in process.stdout:
            confirmed = int(line)
            if confirmed == 25:
                process.send_signal(signal.SIGKILL)  # whatever it is doing now
        process.wait()

        async def scene(last: int = confirmed) -> None:
            store, damage = await _opened(path)
            assert damage == ""
            name = own_prefix(PrivateKey(bytes(range(32))).public)
            found = {store.replica.value(f"{name}{place}") for place in range(20)}
            assert len(found) == 1  # no half of an entry
            assert int(found.pop() or b"-1") in (last, last + 1)
            store.close()

        run(scene())


def test_a_damaged_file_is_put_aside_and_writing_waits_for_a_peer_who_has_the_log(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "store.sqlite"
        swarm = Swarm(2)
        swarm.mesh = LocalMesh(swarm.clock)
        a, b = swarm.store(0, path), swarm.store(1)
        await a.load()
        name = own_prefix(swarm.keys[0].public) + "x"
        for number in range(50):
            await a.write(Put(name, bytes([number])))
        await swarm.timed(b.synchronise(swarm.peers[0]))
        a.close()
        data = bytearray(path.read_bytes())
        middle = data.index(b.replica.logs[swarm.keys[0].public].entries[20].body)
        data[middle + 40] ^= 1  # SQLite itself would not notice
        path.write_bytes(data)
        swarm.mesh = LocalMesh(swarm.clock)
        a, b2 = swarm.store(0, path), swarm.store(1)
        b2.replica = b.replica
        assert "damaged" in await a.load()
        assert (tmp_path / "store.sqlite.damaged-1").exists()
        with pytest.raises(Unavailable, match="waits until a peer"):
            await a.write(Put(name, b"too early"))
        await swarm.timed(a.synchronise(swarm.peers[1]))
        assert a.replica.value(name) == bytes([49])
        entry = await a.write(Put(name, b"again"))
        assert entry.link.sequence == 51
        a.close()
        path.write_bytes(b"no database at all" * 100)
        swarm.mesh = LocalMesh(swarm.clock)
        assert "damaged-2" in await swarm.store(0, path).load()

    run(scene())


def test_what_is_kept_is_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.touch(0o644)
    disk = Disk(path)
    disk.load(bytes(32))
    assert {file.name: file.stat().st_mode & 0o77 for file in tmp_path.iterdir()} == {
        file.name: 0 for file in tmp_path.iterdir()
    }
    disk.close()
