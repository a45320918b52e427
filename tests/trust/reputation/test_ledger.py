"""What every ledger must do, on a replica alone and on replicas that exchange what their authors signed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shoal.core.encoding import encode
from shoal.crypto.keys import PrivateKey
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import Namespace, Replica, own_prefix
from shoal.mesh.store.entry import Put
from shoal.trust.reputation.ledger import Examined, Fraud, Ledger, Seen, StoreLedger, alone, fraud_of
from shoal.trust.reputation.standing import Standing, weight
from shoal.trust.verdict import Verdict

SPACE = Namespace("reputation test")
KEYS = [PrivateKey(bytes([number]) * 32) for number in range(1, 12)]
PEERS = [PeerId(key.public) for key in KEYS]


def opened(number: int, replica: Replica | None = None) -> StoreLedger:
    replica = replica or Replica(SPACE)
    return StoreLedger(PEERS[number], replica, alone(replica, KEYS[number], lambda: 1000.0))


def exchange(ledgers: list[StoreLedger]) -> None:
    """Everybody gets everybody's chains."""
    entries = [entry for ledger in ledgers for log in ledger.replica.logs.values() for entry in log.entries]
    for ledger in ledgers:
        assert not any(refusal.is_fault for refusal in ledger.replica.receive(entries, 1000.0).refused)


async def trusted(ledger: Ledger, subject: PeerId, times: int = 40) -> None:
    await ledger.record(Examined(subject, True))
    for _ in range(times):
        await ledger.record(Seen(subject, "judging", 1.0))


def alone_() -> StoreLedger:
    return opened(0)


def one_of_two() -> StoreLedger:
    """A replica that also holds another author's chain."""
    here, there = opened(0), opened(9)
    there.replica.write(KEYS[9], [Put(f"{own_prefix(PEERS[9].key)}reputation/{PEERS[8]}", encode([1]))], 1000.0)
    exchange([here, there])
    return here


@pytest.mark.parametrize("make", [alone_, one_of_two])
def test_conformance(make: Callable[[], StoreLedger]) -> None:
    async def check() -> None:
        ledger: Ledger = make()
        assert ledger.standing(PEERS[1]) == Standing()
        empty = ledger.root()
        await ledger.record(Seen(PEERS[1], "judging", 1.0))
        await ledger.record(Seen(PEERS[1], "answering", 0.5))
        standing = ledger.standing(PEERS[1])
        assert (standing.judging, standing.num_judging) == (pytest.approx(0.1), 1)
        assert (standing.answering, standing.num_answering) == (pytest.approx(0.05), 1)
        assert weight(standing) == 0.0
        await trusted(ledger, PEERS[1])
        assert weight(ledger.standing(PEERS[1])) > 0.9
        assert ledger.root() != empty
        fraud = Fraud(PEERS[1], b"receipt 1")
        await ledger.record(fraud)
        await ledger.record(fraud)
        assert ledger.standing(PEERS[1]) == Standing(frauds=1)
        with pytest.raises(ValueError, match="stake of 0 or more"):
            await ledger.pledge(-1)

    asyncio.run(check())


def test_stake_is_pledged_by_its_owner_and_gone_after_a_fraud() -> None:
    async def check() -> None:
        here, peer = opened(0), opened(1)
        await peer.pledge(70)
        exchange([here, peer])
        assert here.standing(PEERS[1]).stake == 70
        failed = fraud_of(PEERS[1], Verdict("fingerprint", "fail", "not that model"), b"digest")
        assert failed is not None
        await here.record(failed)
        assert here.standing(PEERS[1]).stake == 0
        assert fraud_of(PEERS[1], Verdict("fingerprint", "unsure", "too short"), b"digest") is None

    asyncio.run(check())


def test_others_count_as_much_as_they_are_trusted_here() -> None:
    async def check() -> None:
        here, friend, stranger = opened(0), opened(1), opened(2)
        await trusted(friend, PEERS[5])
        await trusted(stranger, PEERS[6])
        await trusted(here, PEERS[1], 80)
        await trusted(opened(3), PEERS[1])
        exchange([here, friend, stranger])
        assert here.standing(PEERS[5]).judging > 0.9
        assert here.standing(PEERS[6]) == Standing()

    asyncio.run(check())


def test_a_flood_of_new_names_that_praise_each_other_weighs_nothing() -> None:
    async def check() -> None:
        crowd = [opened(number) for number in range(1, 8)]
        for ledger in crowd:
            for number in range(1, 8):
                await trusted(ledger, PEERS[number], 10)
        here = opened(0)
        exchange([here, *crowd])
        assert [weight(here.standing(PEERS[number])) for number in range(1, 8)] == [0.0] * 7

    asyncio.run(check())


def test_one_trusted_accuser_convicts_nobody_two_do() -> None:
    async def check() -> None:
        here, one, other = opened(0), opened(1), opened(2)
        for number in (1, 2):
            await trusted(here, PEERS[number], 80)
        await trusted(here, PEERS[5])
        await one.record(Fraud(PEERS[5], b"x"))
        exchange([here, one, other])
        assert here.standing(PEERS[5]).frauds == 0
        await other.record(Fraud(PEERS[5], b"y"))
        exchange([here, one, other])
        assert here.standing(PEERS[5]).frauds == 1

    asyncio.run(check())


def test_nobody_speaks_for_himself_and_unreadable_lines_say_nothing() -> None:
    async def check() -> None:
        here, peer = opened(0), opened(1)
        await trusted(peer, PEERS[1])
        prefix = own_prefix(PEERS[1].key)
        await peer.write(Put(f"{prefix}reputation/{PEERS[4]}", b"\xff"), Put(f"{prefix}reputation/nobody", encode(1)))
        await peer.write(Put(f"{prefix}stake", encode("much")))
        await trusted(here, PEERS[1], 80)
        own = here.standing(PEERS[1])
        exchange([here, peer])
        assert here.standing(PEERS[1]) == own
        assert here.standing(PEERS[4]) == Standing()
        assert here.subjects() == [PEERS[4], PEERS[1]] or here.subjects() == [PEERS[1], PEERS[4]]

    asyncio.run(check())


def test_readers_with_one_opinion_have_one_root_whatever_order_entries_came_in() -> None:
    async def check() -> None:
        writer = opened(1)
        for number in (3, 4, 5):
            await trusted(writer, PEERS[number], 3)
        first, second = Replica(SPACE), Replica(SPACE)
        entries = list(writer.replica.logs[PEERS[1].key].entries)
        first.receive(entries, 1000.0)
        for entry in entries:
            second.receive([entry], 1000.0)
        assert opened(0, first).root() == opened(0, second).root()

    asyncio.run(check())
