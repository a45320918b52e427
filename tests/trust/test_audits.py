"""A share of peers' answers, checked in idle time; verifiers drawn, committed, revealed over a mesh in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace

import pytest
from checks_harness import Machine, asked, machine, with_opening

from shoal.core.chunk import Chunk, Usage
from shoal.core.clock import SystemClock, VirtualClock
from shoal.core.decoding import compact, parse
from shoal.core.encoding import decode, encode
from shoal.core.errors import InvalidRequest, Overloaded, PeerFault, ShoalError, Unauthorized
from shoal.core.request import Request
from shoal.crypto.keys import PrivateKey
from shoal.mesh.calls import Body, Incoming
from shoal.mesh.fakes import LocalMesh, LocalPeer
from shoal.mesh.peer_id import PeerId
from shoal.trust.check import Checkers, Subject
from shoal.trust.check_audit import MAX_QUEUE, Audits, Record
from shoal.trust.distribution import Claims
from shoal.trust.distribution_check import Asking, DistributionCheck
from shoal.trust.distribution_draw import Task, drawn, prove
from shoal.trust.distribution_reveal import Commitment, RevealAsked, Revealed, check_revealed, commitment, reveal
from shoal.trust.distribution_serve import COMMIT, MAX_KEPT_OF_PEER, REVEAL, Verifier
from shoal.trust.policy import Draw, parse_policy
from shoal.trust.receipt import receipt_digest
from shoal.trust.verdict import Verdict


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


# ---- audits ----------------------------------------------------------------------------------------------------


def passes() -> Checkers:
    async def checker(subject: Subject) -> Verdict:
        return Verdict("fingerprint", "pass", "looks right")

    return {"fingerprint": checker}


def audits(checkers: Checkers, policy: str = "fingerprint", idle: bool = True) -> Audits:
    return Audits([parse_policy(policy)], Draw(b"s" * 32), checkers, VirtualClock(), lambda: idle)


def answering(subject: Subject, seen: list[Request]) -> Callable[[Request], AsyncIterator[Chunk]]:
    async def generate(request: Request) -> AsyncIterator[Chunk]:
        seen.append(request)
        yield Chunk(text="a")
        receipt = replace(subject.receipt, request_id=request.request_id)
        yield Chunk(finish_reason="stop", usage=Usage(), receipt=receipt, opening=subject.opening)

    return generate


async def settled(made: Audits, count: int) -> None:
    task = asyncio.create_task(made.run())
    for _ in range(10_000):
        if sum(made.counts[name] for name in ("pass", "fail", "unsure")) >= count:
            break
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_every_answer_is_asked_with_a_receipt_and_only_those_who_asked_see_it() -> None:
    async def test() -> None:
        async with machine(0) as here:
            subject = await here.answer(asked(1))
        made, seen = audits(passes()), list[Request]()
        generate = made.audited(answering(subject, seen), "peer")
        bare = [chunk async for chunk in generate(replace(asked(7), receipt=False))]
        full = [chunk async for chunk in generate(asked(8))]
        assert all(request.receipt for request in seen)
        assert all(chunk.receipt is None and chunk.opening is None for chunk in bare)
        assert full[-1].receipt is not None
        assert made.num_waiting == 2

    run(test)


def test_what_is_drawn_is_checked_when_nobody_waits_and_the_record_is_told() -> None:
    async def test() -> None:
        async with machine(0) as here:
            subject = await here.answer(asked(1))
        told: list[Record] = []
        made = audits(passes())
        made.told = told.append
        async for _ in made.audited(answering(subject, []), "peer")(asked(1)):
            pass
        await settled(made, 1)
        assert [record.verdict.outcome for record in told] == ["pass"]
        assert made.records("r1") == tuple(told)
        assert told[0].peer == "peer"
        assert made.records("unknown") == ()

    run(test)


def test_nothing_is_checked_while_somebody_waits_and_the_queue_is_bounded() -> None:
    async def test() -> None:
        async with machine(0) as here:
            subject = await here.answer(asked(1))
        made = audits(passes(), idle=False)
        for number in range(MAX_QUEUE + 5):
            made.offer("peer", asked(number), replace(subject.receipt, sequence=number + 1), subject.opening)
        task = asyncio.create_task(made.run())
        for _ in range(50):
            await asyncio.sleep(0)
        assert made.num_waiting == MAX_QUEUE
        assert made.counts["dropped"] == 5
        assert made.counts["pass"] == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(test)


def test_a_failing_check_reaches_no_answer_and_does_not_end_the_others() -> None:
    async def test() -> None:
        async with machine(0) as here:
            subject = await here.answer(asked(1))

        calls = 0

        async def breaks(subject: Subject) -> Verdict:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("a bug")
            raise InvalidRequest("another model")

        made = audits({"fingerprint": breaks})
        made.offer("peer", asked(1), subject.receipt, subject.opening)
        made.offer("peer", asked(2), subject.receipt, subject.opening)
        await settled(made, 1)
        assert made.counts["error"] == 2
        assert made.records("r1") == ()
        assert made.records("r2")[0].verdict.outcome == "unsure"

    run(test)


def test_a_peer_without_receipts_is_counted_and_a_rate_draws_its_share() -> None:
    async def test() -> None:
        async def bare(request: Request) -> AsyncIterator[Chunk]:
            yield Chunk(finish_reason="stop", usage=Usage())

        made, silent = audits(passes(), "fingerprint:0.2"), list[str]()
        made.unsigned = silent.append
        assert len([chunk async for chunk in made.audited(bare, "peer")(asked(1))]) == 1
        async with machine(0) as here:
            subject = await here.answer(asked(1))
        [output] = subject.opening.outputs
        empty = Subject(subject.receipt, replace(subject.opening, outputs=(replace(output, fingerprints=()),)))
        async for _ in made.audited(answering(empty, []), "other")(asked(1)):
            pass
        assert silent == ["peer", "other"], "nobody evades audits by leaving out what they need"
        assert made.counts["unsigned"] == 2
        for number in range(300):
            made.offer("peer", asked(number), replace(subject.receipt, sequence=number + 1), subject.opening)
        assert 30 < made.counts["drawn"] < 95

    run(test)


# ---- verifiers -------------------------------------------------------------------------------------------------


@contextmanager
def nothing() -> Iterator[None]:
    yield


@dataclass(slots=True)
class Swarm:
    """Verifiers with keys of their own over one mesh, an answerer, and whoever doubts it."""

    mesh: LocalMesh
    machines: list[Machine]
    verifiers: list[Verifier]
    peers: list[LocalPeer]
    doubter: PrivateKey
    caller: LocalPeer

    def check(self, count: int) -> DistributionCheck:
        ids = [PeerId(one.key.public) for one in self.verifiers[1:]]
        return DistributionCheck(self.doubter, self.caller, lambda model: ids, Asking(count, 16, 4, timeout_s=20.0))


def in_swarm(test: Callable[[Swarm], Awaitable[None]], liars: Sequence[int] = (), size: int = 6) -> None:
    """Machine 0 answers, the others verify; liars run another model."""

    async def main() -> None:
        mesh = LocalMesh(SystemClock())
        async with AsyncExitStack() as stack:
            machines = [
                await stack.enter_async_context(machine(number, 0.01, model=5 if number in liars else 0))
                for number in range(size)
            ]
            keys = [one.key for one in machines]
            verifiers = [
                Verifier(key, one.find, lambda peer, tokens: nothing(), mesh.clock)
                for key, one in zip(keys, machines, strict=True)
            ]
            peers = [mesh.join(PeerId(key.public)) for key in keys]
            for verifier, peer in zip(verifiers, peers, strict=True):
                verifier.register(peer)
            doubter = PrivateKey(bytes([99] * 32))
            await test(Swarm(mesh, machines, verifiers, peers, doubter, mesh.join(PeerId(doubter.public))))

    asyncio.run(asyncio.wait_for(main(), 120))


def test_honest_verifiers_pass_an_honest_answer_and_fail_a_cheat() -> None:
    async def test(swarm: Swarm) -> None:
        subject = await swarm.machines[0].answer(asked(1))
        verdict = await swarm.check(5)(subject)
        assert verdict.outcome == "pass", verdict
        assert verdict.cost.sent_bytes > 0
        tokens = [(token + 1) % 256 for token in subject.opening.outputs[0].tokens]
        assert (await swarm.check(5)(Subject(subject.receipt, with_opening(subject, tokens)))).outcome == "fail"

    in_swarm(test)


def test_liars_below_half_change_nothing_and_an_answerer_of_another_model_fails() -> None:
    async def test(swarm: Swarm) -> None:
        honest = await swarm.machines[3].answer(asked(1))
        cheat = await swarm.machines[0].answer(asked(1))
        check = swarm.check(5)
        assert (await check(honest)).outcome == "pass"
        assert (await check(cheat)).outcome == "fail"

    in_swarm(test, liars=(0, 1, 2), size=8)


def test_verifiers_that_are_gone_make_it_unsure() -> None:
    async def test(swarm: Swarm) -> None:
        subject = await swarm.machines[0].answer(asked(1))
        for peer in swarm.peers[1:4]:
            swarm.mesh.crash(peer.peer)
        assert (await swarm.check(5)(subject)).outcome == "unsure"
        few = replace(swarm.check(5), candidates=lambda model: [swarm.peers[0].peer, swarm.peers[1].peer])
        verdict = await few(subject)
        assert verdict.outcome == "unsure"
        assert "at least 3 peers" in verdict.reason

    in_swarm(test)


def incoming(peer: PeerId) -> Incoming:
    return Incoming(peer, COMMIT, None, lambda: pytest.fail("not asked"))


async def task_for(swarm: Swarm, count: int = 5) -> Task:
    return swarm.check(count)._task(
        await swarm.machines[0].answer(asked(1)), 0, tuple(sorted(one.key.public for one in swarm.verifiers[1:]))
    )


def body(value: object) -> memoryview:
    return memoryview(encode(compact(value)))


def test_only_whoever_was_drawn_by_the_one_who_asks_works() -> None:
    async def test(swarm: Swarm) -> None:
        task, verifier = await task_for(swarm), swarm.verifiers[1]
        doubter = incoming(PeerId(swarm.doubter.public))
        rows = swarm.machines[1].runner.num_rows
        refused: dict[str, tuple[Task, Incoming]] = {
            "proven by whoever asks": (task, incoming(PeerId(swarm.verifiers[2].key.public))),
            "proven": (replace(task, proof=bytes(80)), doubter),
            "does not run that model": (replace(task, weights=b"other"), doubter),
            "sorted, each once": (replace(task, candidates=tuple(reversed(task.candidates))), doubter),
            "positions": (replace(task, num_positions=10_000), doubter),
            "of the candidates": (replace(task, num_drawn=9), doubter),
            "somebody chose": (replace(task, begins=len(task.tokens)), doubter),
        }
        for words, (bad, who) in refused.items():
            with pytest.raises(InvalidRequest, match=words):
                await verifier.commit(who, body(bad))
        others = tuple(key for key in task.candidates if key != verifier.key.public)
        undrawn = replace(task, candidates=others, num_drawn=3)
        with pytest.raises(InvalidRequest, match="was not drawn"):
            await verifier.commit(doubter, body(replace(undrawn, proof=prove(undrawn, swarm.doubter))))
        with pytest.raises(InvalidRequest, match="at most"):
            await verifier.commit(doubter, memoryview(bytes(3 * 2**20)))
        assert swarm.machines[1].runner.num_rows == rows, "nothing was computed for any of them"

    in_swarm(test)


def test_nobody_reveals_before_a_majority_has_committed_or_twice() -> None:
    async def test(swarm: Swarm) -> None:
        task = await task_for(swarm)
        who = incoming(PeerId(swarm.doubter.public))
        own = [parse(Commitment, decode(await one.commit(who, body(task)))) for one in swarm.verifiers[1:]]
        own.sort(key=lambda item: item.peer)
        first = next(one for one in swarm.verifiers if one.key.public == own[0].peer)
        for bad in (own[:2], own[1:], own[::-1], [*own[:4], replace(own[4], hidden=bytes(32))], [*own, own[4]]):
            with pytest.raises(InvalidRequest, match="commitments"):
                await first.reveal(who, body(RevealAsked(task.digest, tuple(bad))))
        asked_for = RevealAsked(task.digest, tuple(own))
        shown = parse(Revealed, decode(await first.reveal(who, body(asked_for))))
        check_revealed(shown, asked_for, own[0])
        with pytest.raises(InvalidRequest, match="committed to in the last"):
            await first.reveal(who, body(asked_for))
        with pytest.raises(PeerFault, match="committed to"):
            check_revealed(replace(shown, claims=Claims(shown.claims.ranks[::-1])), asked_for, own[0])
        with pytest.raises(PeerFault, match="signed for this list"):
            check_revealed(shown, RevealAsked(task.digest, tuple(own[:4])), own[0])
        with pytest.raises(InvalidRequest, match="committed to in the last"):
            await swarm.verifiers[2].reveal(incoming(swarm.peers[3].peer), body(asked_for))

    in_swarm(test)


def test_a_copier_cannot_open_what_another_committed_to() -> None:
    """The hash holds the committer's key: the same claims and salt under another name are another commitment."""
    mallory, alice = PrivateKey(bytes([7] * 32)), PrivateKey(bytes([8] * 32))
    claims, task = Claims(()), bytes(32)
    hers = commitment(alice, task, bytes(32), claims)
    stolen = Commitment(mallory.public, hers.hidden, hers.signature)
    asked_for = RevealAsked(task, (hers, stolen))
    with pytest.raises(PeerFault, match="committed to"):
        check_revealed(reveal(mallory, asked_for, bytes(32), claims), asked_for, stolen)


def test_the_owner_decides_who_is_served_and_kept_claims_are_bounded() -> None:
    async def test(swarm: Swarm) -> None:
        task, verifier = await task_for(swarm), swarm.verifiers[1]
        who = incoming(PeerId(swarm.doubter.public))

        def never(peer: PeerId, tokens: int) -> object:
            raise Unauthorized("not you")

        closed = replace(verifier, admit=never)  # type: ignore[arg-type]
        with pytest.raises(Unauthorized):
            await closed.commit(who, body(task))
        for number in range(MAX_KEPT_OF_PEER):
            other = replace(task, receipt=bytes([number] * 32))
            await verifier.commit(who, body(replace(other, proof=prove(other, swarm.doubter))))
        with pytest.raises(Overloaded):
            await verifier.commit(who, body(task))

    in_swarm(test)


def test_malformed_messages_are_the_callers_fault() -> None:
    async def test(swarm: Swarm) -> None:
        for method in (COMMIT, REVEAL):
            for bad in (b"", b"\xff", encode({"task": 1}), encode([1, 2]), encode({})):
                with pytest.raises(ShoalError):
                    await swarm.caller.call(swarm.peers[1].peer, method, bad)

    in_swarm(test)


def test_verifiers_that_answer_nonsense_are_not_counted() -> None:
    async def test(swarm: Swarm) -> None:
        subject = await swarm.machines[0].answer(asked(1))

        async def nonsense(incoming: Incoming, body: memoryview) -> Body:
            return b"nonsense"

        for peer in swarm.peers[1:4]:
            peer._unary[COMMIT] = nonsense
        verdict = await swarm.check(5)(subject)
        assert verdict.outcome == "unsure"
        assert "0 of 5" in verdict.reason, "two that are left show nothing to each other"

    in_swarm(test)


def test_draws_are_of_the_receipt_and_look_uniform() -> None:
    key = PrivateKey(bytes([5] * 32))
    candidates = tuple(sorted(bytes([number] * 32) for number in range(10, 20)))
    counts: dict[bytes, int] = dict.fromkeys(candidates, 0)
    for number in range(300):
        task = Task(
            receipt=number.to_bytes(32, "big"), answerer=bytes(32), weights=b"", request=asked(1), prompt=(1,),
            tokens=tuple(range(100)), begins=4, choice=0, num_positions=16, num_ranks=4, num_drawn=3,
            candidates=candidates,
        )  # fmt: skip
        chosen = drawn(replace(task, proof=prove(task, key)), key.public)
        assert len(set(chosen.positions)) == 16
        assert list(chosen.positions) == sorted(chosen.positions)
        assert chosen.positions[0] >= 4
        for peer in chosen.verifiers:
            counts[peer] += 1
    assert all(abs(count - 90) < 5 * 63**0.5 for count in counts.values())


def test_the_digest_of_a_receipt_names_it() -> None:
    async def test() -> None:
        async with machine(0) as here:
            subject = await here.answer(asked(1))
        assert receipt_digest(subject.receipt) != receipt_digest(replace(subject.receipt, created=5))

    run(test)
