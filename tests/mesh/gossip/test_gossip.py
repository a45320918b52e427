"""Gossip over calls in memory, its wire, and the simulation of many."""

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
from shoal.mesh.fakes import LocalMesh, Weather
from shoal.mesh.gossip import messages
from shoal.mesh.gossip.claims import Accusation, Load, Statement, author, claim_row, require_signature
from shoal.mesh.gossip.fakes import ACCUSATION_BYTES, STATEMENT_BYTES, Air, Change, Simulation
from shoal.mesh.gossip.membership import MAX_CLAIMS
from shoal.mesh.gossip.node import Gossip, Ground
from shoal.mesh.gossip.roster import BUCKETS
from shoal.mesh.peer_id import PeerId


def identity(number: int) -> PrivateKey:
    return PrivateKey(random.Random(number).randbytes(32))


class Swarm:
    def __init__(self, count: int, weather: Weather) -> None:
        self.clock = VirtualClock()
        self.mesh = LocalMesh(self.clock, weather=weather)
        self.tasks: dict[PeerId, asyncio.Task[None]] = {}
        self.nodes = [self.add(number) for number in range(count)]

    def add(self, number: int) -> Gossip:
        key = identity(number)
        local = self.mesh.join(PeerId(key.public))
        address = Address(local.peer, (f"10.0.0.{number}:4",))
        node = Gossip(Ground(local, local, self.clock, key, lambda: address), seed=number)
        self.tasks[node.peer] = asyncio.ensure_future(node.run())
        return node

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            await self.clock.advance(0.05)
            for _ in range(20):
                await asyncio.sleep(0)

    async def timed(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.pass_time(0.05)
        return task.result()

    async def crash(self, node: Gossip) -> None:
        self.mesh.crash(node.peer)
        self.tasks[node.peer].cancel()
        await asyncio.gather(self.tasks[node.peer], return_exceptions=True)

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def seen(nodes: list[Gossip], peer: PeerId) -> set[str]:
    return {member.status if (member := node.member(peer)) else "unknown" for node in nodes if node.peer != peer}


def test_a_swarm_meets_notices_a_death_a_goodbye_and_a_load() -> None:
    async def scene() -> None:
        swarm = Swarm(15, Weather((0.01, 0.03)))
        nodes = swarm.nodes
        for node in nodes[1:]:
            assert await swarm.timed(node.join([nodes[0].peer])) >= 2
        await swarm.pass_time(3)
        assert all(len(node.members()) == 15 for node in nodes)
        nodes[3].set_load(Load(queue=7, tokens_per_s=12.5, models=bytes(32), price=3))
        await swarm.pass_time(6)
        loads = {member.statement.load.queue for node in nodes if (member := node.member(nodes[3].peer))}
        assert loads == {7}
        await swarm.crash(nodes[5])
        await swarm.pass_time(8)
        living = [node for node in nodes if node is not nodes[5]]
        assert seen(living, nodes[5].peer) == {"dead"}
        assert not nodes[0].is_usable(nodes[5].peer)
        await swarm.timed(nodes[6].leave())
        await swarm.crash(nodes[6])
        await swarm.pass_time(2)
        living.remove(nodes[6])
        assert seen(living, nodes[6].peer) == {"left"}
        assert all(seen(living, node.peer) == {"alive"} for node in living)
        await swarm.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_a_mesh_torn_apart_grows_together_again() -> None:
    async def scene() -> None:
        swarm = Swarm(8, Weather())
        nodes = swarm.nodes
        for node in nodes[1:]:
            await swarm.timed(node.join([nodes[0].peer]))
        await swarm.pass_time(3)
        swarm.mesh.partition([node.peer for node in nodes[:4]], [node.peer for node in nodes[4:]])
        await swarm.pass_time(15)
        assert seen(nodes[:4], nodes[7].peer) == {"dead"}
        assert seen(nodes[4:], nodes[0].peer) == {"dead"}
        swarm.mesh.heal()
        await swarm.pass_time(150)
        assert all(seen(nodes, node.peer) == {"alive"} for node in nodes)
        await swarm.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


KEY = identity(1)
PEER = PeerId(KEY.public)
STATEMENT = author(KEY).statement(
    Statement(
        Address(PEER, ("203.0.113.7:41234",), ("203.0.113.7:41235",)),
        1_700_000_000,
        3,
        False,
        Load(3, 2, 41.5, bytes(32)),
    )
)
ACCUSATION = author(KEY).accusation(PeerId(identity(2).public), 1_700_000_000)


def test_claims_survive_the_wire_and_only_their_authors_make_them() -> None:
    assert messages.parse_claims(messages.claims_bytes([STATEMENT, ACCUSATION])) == [STATEMENT, ACCUSATION]
    require_signature(STATEMENT)
    require_signature(ACCUSATION)
    forged = Statement(STATEMENT.address, STATEMENT.incarnation, 4, False, STATEMENT.load, STATEMENT.signature)
    with pytest.raises(PeerFault, match="signed"):
        require_signature(forged)
    with pytest.raises(PeerFault, match="signed"):
        require_signature(Accusation(PEER, 1, ACCUSATION.accuser, ACCUSATION.signature))
    marks = list(range(BUCKETS))
    assert messages.parse_sync(messages.sync_bytes(marks, 9)) == (marks, 9)
    assert messages.parse_ask(messages.ask_bytes(PEER, 0.5)) == (PEER, 0.5)
    assert messages.parse_asked(messages.asked_bytes(True)) is True
    with pytest.raises(PeerFault):
        messages.parse_claims(messages.claims_bytes([STATEMENT] * (MAX_CLAIMS + 1)))
    assert len(messages.claims_bytes([STATEMENT] * 5000, messages.MAX_SYNC_MESSAGE)) <= messages.MAX_SYNC_MESSAGE


def test_an_unsigned_claim_ends_the_call_with_blame() -> None:
    async def scene() -> None:
        swarm = Swarm(2, Weather())
        stranger = swarm.mesh.join()
        forged = Statement(Address(PeerId(identity(9).public)), 1, signature=bytes(64))
        with pytest.raises(PeerFault):
            await swarm.timed(stranger.call(swarm.nodes[0].peer, "gossip.tell", messages.claims_bytes([forged])))
        assert len(swarm.nodes[0].members()) == 1
        await swarm.close()

    asyncio.run(asyncio.wait_for(scene(), 30))


PARSERS = (messages.parse_claims, messages.parse_synced, messages.parse_ask, messages.parse_asked, messages.parse_sync)
SAMPLES = [
    messages.claims_bytes([STATEMENT, ACCUSATION]), messages.ask_bytes(PEER, 0.5), messages.asked_bytes(True),
    messages.sync_bytes([5] * BUCKETS, 9),
]  # fmt: skip
Plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=64) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.binary(max_size=100)
    | Plain.map(encode)
    | st.tuples(st.sampled_from(SAMPLES), st.integers(0, 2000), st.integers(0, 255))
)
def test_fuzz_any_bytes(noise: bytes | tuple[bytes, int, int]) -> None:
    """Invariant: each parser gives a typed value or raises PeerFault, whatever the bytes."""
    if isinstance(noise, tuple):
        sample, at, byte = noise
        noise = sample[: at % len(sample)] + bytes([byte]) + sample[at % len(sample) + 1 :]
    good = 0
    for parser in PARSERS:
        try:
            parser(noise)
            good += 1
        except PeerFault:
            continue
    assert good <= 3


def run_of(count: int, loss: float, is_shared: bool, seed: int = 1) -> tuple[Simulation, list[Change]]:
    changes: list[Change] = []
    simulation = Simulation(count, Air(loss=loss), changes.append, seed, is_shared)
    simulation.run(10)
    simulation.crash(simulation.peers[3])
    simulation.run(25)
    return simulation, changes


def test_the_shared_roster_is_the_full_one_with_less_memory() -> None:
    one, shared = run_of(60, 0.0, True)
    two, full = run_of(60, 0.0, False)
    deaths = [
        {(change.observer, round(change.at, 1)) for change in changes if change.member.status == "dead"}
        for changes in (shared, full)
    ]
    assert deaths[0] == deaths[1]
    assert len(deaths[0]) == 59
    assert one.num_bytes == two.num_bytes


def test_three_hundred_peers_with_loss_know_of_a_death_in_seconds_and_bury_nobody_alive() -> None:
    simulation, changes = run_of(300, 0.05, True)
    dead = simulation.peers[3]
    deaths = [change for change in changes if change.member.status == "dead"]
    assert {change.member.peer for change in deaths} == {dead}
    assert len(deaths) == 299
    assert sorted(change.at - 10 for change in deaths)[150] < 9
    assert simulation.num_bytes / 300 / 35 < 2000, "bytes a second for each peer"


def test_the_simulations_sizes_are_those_of_the_wire() -> None:
    assert abs(len(encode(claim_row(STATEMENT))) - STATEMENT_BYTES) < 15
    assert abs(len(encode(claim_row(ACCUSATION))) - ACCUSATION_BYTES) < 5
