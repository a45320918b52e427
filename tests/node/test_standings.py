"""Audits become lines of the ledger, and the ledger's trouble is nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from shoal.core.errors import LocalError
from shoal.crypto.keys import PrivateKey
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import Namespace, Replica
from shoal.node.standings import Keeping
from shoal.trust.check_audit import Record
from shoal.trust.reputation.ledger import StoreLedger, alone
from shoal.trust.reputation.standing import Standing
from shoal.trust.verdict import Outcome, Verdict

KEY = PrivateKey(bytes(32))
PEER = PeerId(PrivateKey(bytes([1]) * 32).public)


def opened() -> StoreLedger:
    replica = Replica(Namespace("test"))
    return StoreLedger(PeerId(KEY.public), replica, alone(replica, KEY, lambda: 1000.0))


def record(outcome: Outcome, request_id: str = "r") -> Record:
    return Record(request_id, str(PEER), (Verdict("fingerprint", outcome, "why"),), 0.0)


def test_passes_build_a_name_failures_end_it_and_the_unsure_say_nothing() -> None:
    async def check() -> None:
        ledger = opened()
        keeping = Keeping(ledger)
        await keeping.keep(record("unsure"))
        assert ledger.standing(PEER) == Standing()
        for number in range(10):
            await keeping.keep(record("pass", f"r{number}"))
        assert ledger.standing(PEER).answering == pytest.approx(1 - 0.9**10, abs=1e-5)
        await keeping.keep(record("fail"))
        await keeping.keep(record("fail"))
        assert ledger.standing(PEER) == Standing(frauds=1)

    asyncio.run(check())


def test_what_was_told_is_written_in_turn_and_a_full_ledger_stops_nothing() -> None:
    async def full(*operations: object) -> object:
        raise LocalError("its author's log is full")

    async def check() -> None:
        ledger = opened()
        keeping = Keeping(ledger)
        keeping.told(record("pass"))
        task = asyncio.create_task(keeping.run())
        while not ledger.standing(PEER).num_answering:
            await asyncio.sleep(0)
        ledger.write = full
        keeping.told(record("fail"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(check())
