"""Sixty peers find each other and their records in memory, with crashes and time; and no bytes break a parser."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.dht import messages
from shoal.mesh.dht.contact import Contact, worked
from shoal.mesh.dht.messages import Find, Put
from shoal.mesh.dht.node import Dht, Ground, Options
from shoal.mesh.dht.record import Draft, record_key, signed, topic_of
from shoal.mesh.dht.table import Limits
from shoal.mesh.fakes import LocalMesh, numbered
from shoal.mesh.peer_id import PeerId

BITS = 3


def identity(number: int) -> PrivateKey:
    return PrivateKey(random.Random(number).randbytes(32))


class Swarm:
    def __init__(self, count: int, **options: Any) -> None:
        self.clock = VirtualClock()
        self.mesh = LocalMesh(self.clock)
        self.learned: list[Address] = []
        self.nodes = [self.add(number, **options) for number in range(count)]

    def add(self, number: int, **options: Any) -> Dht:
        key = identity(number)
        local = self.mesh.join(PeerId(key.public))
        address = Address(local.peer, (f"10.0.0.{number}:4",))
        ground = Ground(local, local, self.clock, key, lambda: address, self.learned.append)
        settled = {"difficulty": BITS, "limits": Limits(k=8), "seed": number, **options}
        return Dht(ground, Options(**settled))

    def seed(self) -> Address:
        return Address(self.nodes[0].peer)

    async def gather(self) -> None:
        for node in self.nodes[1:]:
            await self.timed(node.bootstrap([self.seed()]))

    async def timed(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Let time pass only while the work waits for it."""
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(60):
                await asyncio.sleep(0)
            if not task.done():
                await self.clock.advance(0.5)
        return task.result()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def test_providers_values_and_addresses_are_found_by_anybody() -> None:
    async def scene() -> None:
        swarm = Swarm(60)
        await swarm.gather()
        a, b, c, d = (swarm.nodes[number] for number in (7, 21, 33, 59))
        topic = topic_of("model tiny")
        assert await swarm.timed(a.provide(topic, b"here")) == 8
        assert await swarm.timed(b.provide(topic)) == 8
        found = await swarm.timed(c.providers(topic))
        assert {record.author for record in found} == {a.peer, b.peer}
        assert await swarm.timed(a.announce()) == 8
        assert await swarm.timed(d.resolve(a.peer)) == Address(a.peer, ("10.0.0.7:4",))
        assert await swarm.timed(d.resolve(b.peer)) is None
        await swarm.timed(a.put(Draft("value", topic, b"1")))
        await swarm.timed(a.put(Draft("value", topic, b"2")))
        assert await swarm.timed(c.value(a.peer, topic)) == b"2"
        assert await swarm.timed(c.value(b.peer, topic)) is None
        assert Address(a.peer, ("10.0.0.7:4",)) in swarm.learned

    run(scene())


def test_lookups_agree_with_naive_search() -> None:
    async def scene() -> None:
        swarm = Swarm(60)
        await swarm.gather()
        for number in range(20):
            key = random.Random(number).randbytes(32)
            asker = swarm.nodes[number]
            found = await swarm.timed(asker.find_peers(key))
            target = int.from_bytes(key, "big")
            naive = sorted((node for node in swarm.nodes if node is not asker), key=lambda node: node.own ^ target)
            assert [contact.peer for contact in found[:4]] == [node.peer for node in naive[:4]]

    run(scene())


def test_records_live_as_long_as_they_are_renewed_and_holders_may_die() -> None:
    async def scene() -> None:
        swarm = Swarm(40, lifetime_s=100, republish_s=60.0)
        await swarm.gather()
        author, reader = swarm.nodes[5], swarm.nodes[30]
        topic = topic_of("blob")
        await swarm.timed(author.provide(topic))
        key = record_key("provider", topic)
        holders = [node for node in swarm.nodes if node.storage.get(key, swarm.clock.wall(), 9, random.Random(1))]
        for node in [node for node in holders if node not in (author, reader)][:5]:
            swarm.mesh.crash(node.peer)
        assert len(await swarm.timed(reader.providers(topic))) == 1
        await swarm.clock.advance(70)
        await swarm.timed(author.tick())
        await swarm.clock.advance(70)
        assert len(await swarm.timed(reader.providers(topic))) == 1, "it was renewed, past its first expiry"
        author.withdraw(Draft("provider", topic, b""))
        await swarm.clock.advance(101)
        assert await swarm.timed(reader.providers(topic)) == ()
        await swarm.timed(reader.tick())
        assert len(reader.storage) == 0

    run(scene())


def test_without_work_nobody_enters_a_table_or_stores() -> None:
    async def scene() -> None:
        swarm = Swarm(12, difficulty=8)
        await swarm.gather()
        cheap = swarm.add(100, difficulty=1)
        await swarm.timed(cheap.bootstrap([swarm.seed()]))
        assert await swarm.timed(cheap.provide(topic_of("x"))) == 0
        assert not any(contact.peer == cheap.peer for node in swarm.nodes for contact in node.table)
        client = swarm.add(101, difficulty=8, is_client=True)
        await swarm.timed(client.bootstrap([swarm.seed()]))
        assert len(client.table) > 5
        assert not any(contact.peer == client.peer for node in swarm.nodes for contact in node.table)

    run(scene())


def test_the_table_checks_its_quietest_before_it_lets_go() -> None:
    async def scene() -> None:
        swarm = Swarm(30)
        await swarm.gather()
        node = swarm.nodes[0]
        full = [contact for contact in node.table if (contact.place ^ node.own).bit_length() == 256]
        assert len(full) == 8
        swarm.mesh.crash(full[0].peer)
        swarm.mesh.crash(full[1].peer)
        for round_number in range(6):
            await swarm.clock.advance(200)
            for other in swarm.nodes:
                if swarm.mesh.is_reachable(other.peer, node.peer) and other is not node:
                    await swarm.timed(other.find_peers(node.own.to_bytes(32, "big")))
            await swarm.timed(node.tick())
            del round_number
        assert full[0] not in node.table
        assert full[1] not in node.table

    run(scene())


GOOD = worked(Address(numbered(1), ("1.2.3.4:5",), (), ("https://relay",)), BITS)
OWNER = identity(1)
OWNED = worked(Address(PeerId(OWNER.public)), BITS)
RECORD = signed(Draft("provider", topic_of("m"), b"v" * 20), OWNER, 1, 1_700_000_500)
SAMPLES = [
    messages.find_bytes(Find(GOOD, bytes(32), True)),
    messages.found_bytes(GOOD, [GOOD, OWNED], [RECORD]),
    messages.put_bytes(Put(OWNED, RECORD)),
    messages.stored_bytes("no"),
]
Plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


def read_all(data: bytes) -> int:
    """Invariant: every parser gives a typed value or raises PeerFault, for any bytes. How many gave a value."""
    good = 0
    for parser in (
        messages.parse_find,
        messages.parse_found,
        messages.parse_put,
        lambda data, _: messages.parse_stored(data),
    ):
        try:
            parser(data, GOOD.peer)
            good += 1
        except PeerFault:
            pass
    return good


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | Plain.map(encode))
def test_fuzz_any_bytes(data: bytes) -> None:
    read_all(data)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SAMPLES), st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"]))
def test_fuzz_changed_messages(sample: bytes, at: int, byte: int, how: str) -> None:
    at %= len(sample)
    changed = {"set": sample[:at] + bytes([byte]) + sample[at + 1 :], "cut": sample[:at],
               "insert": sample[:at] + bytes([byte]) + sample[at:]}[how]  # fmt: skip
    read_all(changed)


def test_what_is_sent_is_read_and_a_sender_cannot_pose_as_another() -> None:
    assert messages.parse_find(SAMPLES[0], GOOD.peer) == Find(GOOD, bytes(32), True)
    assert messages.parse_found(SAMPLES[1], GOOD.peer).contacts == (GOOD, OWNED)
    assert messages.parse_put(SAMPLES[2], OWNED.peer) == Put(OWNED, RECORD)
    with pytest.raises(PeerFault, match="contact of"):
        messages.parse_find(SAMPLES[0], OWNED.peer)
    with pytest.raises(PeerFault, match="own record"):
        messages.parse_put(messages.put_bytes(Put(GOOD, RECORD)), GOOD.peer)
    with pytest.raises(PeerFault, match="at most"):
        messages.parse_find(bytes(messages.MAX_REQUEST + 1), GOOD.peer)


def test_a_full_reply_keeps_its_bound() -> None:
    hints = tuple(f"[2001:db8:1234:5678:9abc:def0:1234:{number}]:65535" for number in range(9))
    contacts = [Contact(Address(numbered(number), hints, hints, hints)) for number in range(30)]
    records = [signed(Draft("provider", topic_of("m"), b"v" * 1024), identity(n), 1, 9) for n in range(40)]
    data = messages.found_bytes(contacts[0], contacts, records)
    assert len(data) <= messages.MAX_REPLY
    found = messages.parse_found(data, contacts[0].peer)
    assert len(found.contacts) == messages.MAX_CONTACTS
    assert len(found.records) >= 30


def test_liars_hide_no_record_from_disjoint_paths() -> None:
    """A quarter of the peers take records and forget them, and name only each other."""

    async def scene() -> None:
        swarm = Swarm(60)
        await swarm.gather()
        liars = swarm.nodes[40:55]
        contacts = [node._contact() for node in liars]

        def lie(own: Contact) -> Any:
            async def answer(incoming: Any, body: memoryview) -> bytes:
                target = int.from_bytes(messages.parse_find(body, incoming.peer).key, "big")
                friends = sorted((other for other in contacts if other), key=lambda other: other.place ^ target)
                return messages.found_bytes(own, friends[:8], [])

            return answer

        async def forget(incoming: Any, body: memoryview) -> bytes:
            return messages.stored_bytes("")

        for node, contact in zip(liars, contacts, strict=True):
            assert contact is not None
            handlers = swarm.mesh.at(node.peer)._unary
            handlers["dht.find"], handlers["dht.put"] = lie(contact), forget
        honest = [node for node in swarm.nodes if node not in liars]
        for number in range(12):
            topic = topic_of(f"model {number}")
            await swarm.timed(honest[number].provide(topic))
            found = await swarm.timed(honest[-1 - number].providers(topic))
            assert {record.author for record in found} == {honest[number].peer}

    run(scene())
