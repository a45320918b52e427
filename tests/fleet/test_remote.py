"""A peer answers over the mesh: the same answer, cancelled when left, refused without consent, within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fleet_houses import CHAT, IDLE, make_engine, provider
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, LinkClosed, LocalError, Overloaded, PeerFault, ShoalError, Unauthorized
from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.request import Request, Tool
from shoal.core.seams import Generate, closing
from shoal.core.service import ModelCard
from shoal.core.waiting import MAX_LATE, Pulse, within
from shoal.fleet.accounts import Accounts, Limits
from shoal.fleet.affinity import Affinity
from shoal.fleet.cost import prompt_tokens
from shoal.fleet.health import Health
from shoal.fleet.remote import RemoteEngine
from shoal.fleet.route import Router
from shoal.fleet.sharing import Offer, Sharing, read_offer
from shoal.fleet.wire import (
    FIRST_SILENCE_S,
    METHOD,
    MISSED_TICKS,
    MODELS,
    SILENCE_S,
    TICK_S,
    read_chunks,
    read_request,
    write_chunks,
    write_request,
)
from shoal.mesh.calls import CallStream
from shoal.mesh.fakes import LocalMesh, LocalPeer

PUBLIC = Limits("public")
CARD = ModelCard("tiny", context_length=512)


class Town:
    """A caller, and peers that serve a `Generate` each."""

    def __init__(self, *engines: Generate, limits: Limits = PUBLIC) -> None:
        self.clock = VirtualClock()
        self.mesh = LocalMesh(self.clock)
        self.caller = self.mesh.join()
        self.peers = [self._serve(engine, limits) for engine in engines]

    def _serve(self, engine: Generate, limits: Limits) -> tuple[LocalPeer, Sharing]:
        peer = self.mesh.join()
        sharing = Sharing(engine, lambda: (CARD,), Accounts(limits), lambda _: False, self.clock, 0.5)
        sharing.register(peer)
        return peer, sharing

    def remote(self, number: int = 0) -> RemoteEngine:
        return RemoteEngine(self.peers[number][0].peer, self.caller, self.clock)

    async def pass_time(self, seconds: float) -> None:
        for _ in range(50):  # whoever is about to wait for the clock gets that far
            await asyncio.sleep(0)
        await self.clock.advance(seconds)

    async def ask(self, request: Request = CHAT, number: int = 0) -> list[Chunk]:
        return [chunk async for chunk in self.remote(number).generate(request)]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


@contextmanager
def raises(kind: type[ShoalError], match: str = "") -> Iterator[None]:
    with pytest.raises(kind, match=match) as caught:
        yield
    assert type(caught.value) is kind


def test_the_same_answer_as_here() -> None:
    async def test() -> None:
        engine = make_engine()
        town = Town(engine.generate)
        for request in (CHAT, replace(CHAT, n=2), replace(CHAT, prompt=(1, 2, 3))):
            here = [chunk async for chunk in engine.generate(request)]
            there = await town.ask(request)
            assert [replace(chunk, usage=None) for chunk in there] == [replace(chunk, usage=None) for chunk in here]
            assert there[-1].usage is not None
        await engine.stop()

    run(test)


def test_errors_keep_their_blame() -> None:
    async def test() -> None:
        engine = make_engine()
        town = Town(engine.generate)
        with raises(InvalidRequest, "top_p"):
            await town.ask(replace(CHAT, sampling=replace(CHAT.sampling, top_p=7.0)))
        await engine.stop()

    run(test)


def test_leaving_cancels_over_there_and_settles_the_account() -> None:
    async def test() -> None:
        script = ScriptedGenerate(lambda _: [Chunk(text="a", token_ids=(1,)), asyncio.Event()])
        town = Town(script)
        async with closing(town.remote().generate(CHAT)) as answer:
            assert (await anext(answer)).text == "a"
        assert len(script.cancelled) == 1
        account = town.peers[0][1].accounts.snapshot()[town.caller.peer]
        computed = round(prompt_tokens(CHAT))  # also for whoever leaves before the end
        assert (account.running, account.given) == (0, 1 + computed)

    run(test)


def test_a_peer_that_dies_in_mid_answer_is_replaced_in_mid_answer() -> None:
    async def test() -> None:
        one, two = make_engine(), make_engine()
        expected = [chunk async for chunk in one.generate(CHAT)]
        for cut in range(1, len(expected), 4):
            town = Town(one.generate, two.generate)
            providers = [
                provider("a", town.remote(0).generate, load=IDLE),
                provider("b", town.remote(1).generate, load=IDLE, rtt_s=1.0),
            ]
            router = Router(
                lambda found=providers: found, town.clock, lambda _: None, lambda *_: True, Health(), Affinity()
            )
            chunks: list[Chunk] = []
            async for chunk in router.generate(CHAT):
                chunks.append(chunk)
                if len(chunks) == cut:
                    town.mesh.crash(town.peers[0][0].peer)
            assert [token for chunk in chunks for token in chunk.token_ids] == [
                token for chunk in expected for token in chunk.token_ids
            ]
            assert "".join(chunk.text for chunk in chunks) == "".join(chunk.text for chunk in expected)
        await one.stop()
        await two.stop()

    run(test)


def test_silence_is_trouble_but_thought_is_not() -> None:
    """An engine that thinks for a minute sends ticks; a peer that says nothing at all is given up."""

    async def test() -> None:
        thinking = asyncio.Event()
        town = Town(ScriptedGenerate(lambda request: [thinking, *words("done")(request)]))
        answer = asyncio.ensure_future(town.ask())
        for _ in range(60):
            await town.pass_time(1.0)
        assert not answer.done()
        thinking.set()
        assert (await answer)[0].text == "done"

        mute = town.mesh.join()

        async def say_nothing(*_: object) -> None:
            await asyncio.Event().wait()

        mute.streaming(METHOD, say_nothing)
        waiting = asyncio.ensure_future(collect(RemoteEngine(mute.peer, town.caller, town.clock).generate))
        await town.pass_time(FIRST_SILENCE_S * 0.9)
        assert not waiting.done()
        await town.pass_time(FIRST_SILENCE_S * 0.2)
        with raises(LinkClosed, "said nothing"):
            await waiting

        stuck = town.mesh.join()

        async def say_hello(_: object, call: CallStream) -> None:
            await call.send(b"")
            await asyncio.Event().wait()

        stuck.streaming(METHOD, say_hello)
        waiting = asyncio.ensure_future(collect(RemoteEngine(stuck.peer, town.caller, town.clock).generate))
        patient = asyncio.ensure_future(collect(RemoteEngine(stuck.peer, town.caller, town.clock, True).generate))
        await town.pass_time(MISSED_TICKS * TICK_S * 0.9)
        assert not waiting.done()
        await town.pass_time(MISSED_TICKS * TICK_S * 0.2)
        with raises(LinkClosed, "said nothing"):
            await waiting
        assert not patient.done()  # its link would have told of its end
        await town.pass_time(MISSED_TICKS * TICK_S)
        with raises(LinkClosed, "said nothing"):
            await patient

    run(test)


def test_a_peer_that_was_slow_before_is_given_more_time() -> None:
    pulse = Pulse(TICK_S, MISSED_TICKS, SILENCE_S)
    assert pulse.limit_s == MISSED_TICKS * TICK_S
    pulse.heard(TICK_S / 2)
    assert pulse.limit_s == MISSED_TICKS * TICK_S
    pulse.heard(0.75)
    assert pulse.limit_s == MISSED_TICKS * 0.75
    pulse.heard(60.0)
    assert pulse.limit_s == SILENCE_S


class HeldUp(VirtualClock):
    """Its alarms come `late_s` too late, one after the other: a process that gets no turn."""

    def __init__(self, *late_s: float) -> None:
        super().__init__()
        self.late_s, self.alarms = list(late_s), 0

    async def sleep(self, delay_s: float) -> None:
        self.alarms += 1
        await self.advance(delay_s + (self.late_s.pop(0) if self.late_s else 0.0))


def test_a_silence_that_this_process_slept_through_proves_nothing() -> None:
    """On a machine with too much to do the alarm goes off before the message that came long ago is read."""

    async def test() -> None:
        clock = HeldUp(1.0)

        async def read_at_last() -> str:
            while clock.alarms < 2:
                await asyncio.sleep(0)
            return "here"

        assert await within(clock, 2.0, read_at_last()) == "here"
        clock = HeldUp(*[1.0] * 100)
        with raises(LinkClosed, "said nothing"):
            await within(clock, 2.0, asyncio.get_running_loop().create_future())
        assert clock.monotonic() == MAX_LATE * 3.0

    run(test)


async def collect(generate: Generate) -> list[Chunk]:
    return [chunk async for chunk in generate(CHAT)]


def test_nobody_is_served_without_consent() -> None:
    async def test() -> None:
        script = ScriptedGenerate(words("secret"))
        town = Town(script, limits=Limits())
        with raises(Unauthorized, "nobody but its owner"):
            await town.ask()
        assert not script.seen
        peer = town.peers[0][0].peer
        assert read_offer(await town.caller.call(peer, MODELS, b"")) == Offer()
        town = Town(script, limits=Limits("listed", frozenset({town.caller.peer})))
        assert (await town.ask())[0].text == "secret"
        assert read_offer(await town.caller.call(town.peers[0][0].peer, MODELS, b"")) == Offer((CARD,), 0.5)
        with raises(Unauthorized, "shares with: swarm"):
            await Town(script, limits=Limits("swarm")).ask()

    run(test)


def test_limits_of_a_peer() -> None:
    async def test() -> None:
        blocked = ScriptedGenerate(lambda _: [Chunk(text="a"), asyncio.Event()])
        town = Town(blocked, limits=Limits("public", max_concurrent=2))
        held = [town.remote().generate(CHAT) for _ in range(2)]
        for answer in held:
            await anext(answer)
        with raises(Overloaded, "2 requests running"):
            await town.ask()
        for answer in held:
            await answer.aclose()  # type: ignore[attr-defined]

        town = Town(ScriptedGenerate(words(*"abcdefgh")), limits=Limits("public", tokens_per_minute=10.0))
        await town.ask()
        with raises(Overloaded, "10 tokens a minute"):
            await town.ask()
        await town.clock.advance(30.0)
        await town.ask()

    run(test)


def test_peers_come_after_the_owner_and_debtors_after_givers() -> None:
    accounts = Accounts(Limits("public", max_concurrent=9, tokens_per_minute=1e9))
    mesh = LocalMesh(VirtualClock())
    taker, giver = mesh.join().peer, mesh.join().peer
    for peer in (taker, giver):
        accounts.admit(peer, False, 0.0)
        accounts.settle(peer, 100_000, 0.0)
    accounts.credit(giver, 90_000, 0.0)
    assert 0 < accounts.admit(giver, False, 0.0) < accounts.admit(taker, False, 0.0) <= 950


def test_a_peers_request_cannot_jump_the_queue_or_take_anothers_name() -> None:
    async def test() -> None:
        script = ScriptedGenerate(words("x"))
        town = Town(script)
        await town.ask(replace(CHAT, priority=-1000, deadline=5.0))
        seen = script.seen[0]
        assert seen.priority >= 450
        assert seen.request_id == f"{town.caller.peer.short}/r"
        assert seen.deadline == 5.0
        with raises(InvalidRequest, "request id"):
            await town.ask(replace(CHAT, request_id="x" * 300))

    run(test)


@pytest.mark.parametrize("body", [b"", b"\xff", encode({"request_id": "r"}), encode([1]), b"\x00" * 100])
def test_a_request_made_up(body: bytes) -> None:
    async def test() -> None:
        town = Town(ScriptedGenerate(words("x")))
        async with town.caller.stream(town.peers[0][0].peer, METHOD) as call:
            await call.send(body)
            await call.end()
            with pytest.raises((InvalidRequest, LocalError)):
                async for _ in call:
                    pass
        assert town.peers[0][1].accounts.snapshot()[town.caller.peer].running == 0

    run(test)


@given(st.binary(max_size=200))
def test_bytes_of_a_stranger(data: bytes) -> None:
    """A typed value or the peer's fault; what was understood is written the same way."""
    try:
        chunks = read_chunks(data)
    except PeerFault:
        pass
    else:
        assert read_chunks(write_chunks(chunks)) == chunks
    with pytest.raises(InvalidRequest):
        read_request(data, 0.0)


def test_a_request_that_cannot_be_written_is_the_clients_fault_and_nobody_elses() -> None:
    huge = Tool("f", parameters={"maximum": 10**30})
    schema = replace(CHAT, tools=(huge,))
    for request, param in ((schema, "tools"), (replace(CHAT, prompt=(10**30,)), "messages")):
        with pytest.raises(InvalidRequest, match="cannot be sent to a peer: integer outside") as caught:
            write_request(request, 0.0)
        assert caught.value.param == param

    async def test() -> None:
        script = ScriptedGenerate(words("x"))
        town, health, told = Town(script), Health(), list[str]()
        found = [provider("a", town.remote().generate, load=IDLE)]
        router = Router(
            lambda: found, town.clock, lambda item: told.append(item.outcome), lambda *_: True, health, Affinity()
        )
        with raises(InvalidRequest, "cannot be sent to a peer"):
            await collect_from(router, schema)
        assert not script.seen
        assert not health.failures
        assert len(told) == 1
        assert await collect_from(router, CHAT)

    run(test)


async def collect_from(router: Router, request: Request) -> list[Chunk]:
    return [chunk async for chunk in router.generate(request)]


def test_a_deadline_is_relative_on_the_way() -> None:
    data = write_request(replace(CHAT, deadline=107.0), now=100.0)
    assert read_request(data, now=5000.0).deadline == 5007.0
