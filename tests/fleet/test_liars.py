"""Providers that lie: what they say is bounded by what was asked, and nobody else pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from fleet_houses import CHAT, IDLE, make_engine, provider

from shoal.core.chunk import Chunk, Measured, Receipt, TokenLogprob, ToolCallDelta, Usage
from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode as encoded
from shoal.core.errors import InvalidRequest, LinkClosed, LocalError, PeerFault
from shoal.core.fakes import ScriptedGenerate
from shoal.core.request import Request, Resume, Sampling, Tool
from shoal.core.service import ModelCard
from shoal.fleet.accounts import Accounts, Limits
from shoal.fleet.affinity import Affinity
from shoal.fleet.believing import believed, believed_usage
from shoal.fleet.health import Health
from shoal.fleet.neighbours import Neighbours, Sighting
from shoal.fleet.progress import Progress
from shoal.fleet.provider import Provider
from shoal.fleet.remote import STALL_S, RemoteEngine
from shoal.fleet.route import Router
from shoal.fleet.sharing import Offer, read_offer
from shoal.fleet.wire import METHOD, MODELS
from shoal.mesh.calls import CallStream
from shoal.mesh.fakes import LocalMesh

ASKED = Request("r", "tiny", "once", Sampling(max_tokens=10))
END = Chunk(finish_reason="stop", usage=Usage(1, 1))


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def ask(providers: list[Provider], request: Request = CHAT) -> list[Chunk]:
    router = Router(lambda: providers, VirtualClock(), lambda _: None, lambda *_: True, Health(), Affinity())
    return [chunk async for chunk in router.generate(request)]


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(token_ids=tuple(range(11))),
        Chunk(text="x" * 10_000_000),
        Chunk(token_ids=(-1,)),
        Chunk(token_ids=(2**40,)),
        Chunk(logprobs=(TokenLogprob(1, b"a", -1.0),)),
        Chunk(tool_calls=(ToolCallDelta(0, "id", "rm", "{}"),)),
        Chunk(index=1, text="a choice nobody asked for"),
    ],
)
def test_what_was_not_asked_for_is_refused(chunk: Chunk) -> None:
    with pytest.raises(PeerFault):
        Progress(ASKED).add(chunk)


def test_an_endless_answer_ends() -> None:
    progress, one = Progress(ASKED), Chunk(text="a", token_ids=(5,))
    for _ in range(10):
        progress.add(one)
    with pytest.raises(PeerFault, match="beyond the 10 tokens"):
        progress.add(one)
    progress, text = Progress(ASKED), Chunk(text="without tokens " * 4000)
    progress.add(text)
    with pytest.raises(PeerFault, match="beyond"):
        progress.add(text)


def test_log_probabilities_are_as_many_and_as_flat_as_was_asked() -> None:
    asked = replace(ASKED, sampling=Sampling(max_tokens=10, logprobs=1))
    top = TokenLogprob(2, b"b", -2.0)
    assert believed(Chunk(logprobs=(TokenLogprob(1, b"a", -1.0, (top, top)),)), asked).logprobs
    for bad in (
        TokenLogprob(1, b"a", -1.0, (top,) * 20),
        TokenLogprob(1, b"a", -1.0, (replace(top, top=(top,)),)),
        TokenLogprob(1, b"a", float("nan")),
        TokenLogprob(1, bytes(100_000), -1.0),
    ):
        with pytest.raises(PeerFault):
            believed(Chunk(logprobs=(bad,)), asked)


def test_tool_calls_have_names_that_can_be_shown() -> None:
    asked = replace(CHAT, tools=(Tool("look"),))
    assert believed(Chunk(tool_calls=(ToolCallDelta(0, "1", "look"),)), asked).tool_calls
    for bad in (ToolCallDelta(-1), ToolCallDelta(10**9), ToolCallDelta(0, "\x1b[2J"), ToolCallDelta(0, "a" * 999)):
        with pytest.raises(PeerFault):
            believed(Chunk(tool_calls=(bad,)), asked)


def test_usage_is_what_could_be_true_and_receipts_are_asked_for() -> None:
    lie = Usage(-5, 2**70, 2**80, float("nan"), -1.0, float("inf"), Measured(-1.0, "rapl"), Measured(1.0, "\x1b[31m"),
                Measured(float("nan"), "x"), Measured(3.0, "modelled", 1.0), ("local",))  # fmt: skip
    found = believed_usage(lie)
    assert (found.prompt_tokens, found.cached_tokens) == (0, 0)
    assert found.completion_tokens <= 2**40
    assert (found.queue_s, found.ttft_s, found.duration_s) == (None, None, None)
    assert (found.energy_j, found.water_l, found.carbon_g) == (None, None, None)
    assert found.cost_usd == Measured(3.0, "said by the peer: modelled", 1.0)
    assert found.providers == ()
    assert believed(Chunk(receipt=Receipt(), finish_reason="stop"), ASKED).receipt is None


def test_tokens_that_are_none_neither_fail_the_request_nor_blame_the_honest() -> None:
    """A liar's ids travel to the next provider, here the engine itself, which cannot go on behind them."""

    async def liar(request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(text="once ", token_ids=(2**31 - 1,))
        raise LinkClosed("gone")

    async def test() -> None:
        engine = make_engine()
        honest = provider("local", engine.generate, "local", load=IDLE, rtt_s=1.0)
        chunks = await ask([provider("liar", liar, load=IDLE), honest])
        assert "".join(chunk.text for chunk in chunks).startswith("once ")
        assert chunks[-1].finish_reason is not None
        chunks_of_peer = await ask([provider("liar", liar, load=IDLE), replace(honest, name="peer", kind="peer")])
        assert chunks_of_peer[-1].finish_reason is not None
        sampled = replace(CHAT, sampling=replace(CHAT.sampling, logprobs=0))
        with pytest.raises(LocalError):  # half an answer, and no way to go on: not the client's fault
            await ask([provider("liar", liar, load=IDLE), honest], sampled)
        await engine.stop()

    run(test)


def test_a_bug_met_by_what_a_peer_sent_does_not_end_the_request() -> None:
    def bug(request: Request) -> list[Chunk | Exception | asyncio.Event]:
        return [RecursionError("deep")]

    async def test() -> None:
        good = ScriptedGenerate(lambda _: [Chunk(text="fine", token_ids=(1,)), END])
        chunks = await ask([provider("a", ScriptedGenerate(bug)), provider("b", good, rtt_s=9.0)])
        assert chunks[0].text == "fine"

    run(test)


def test_a_peer_that_is_always_about_to_answer_is_given_up() -> None:
    async def test() -> None:
        clock = VirtualClock()
        mesh = LocalMesh(clock)
        caller, peer = mesh.join(), mesh.join()

        async def tick(_: object, call: CallStream) -> None:
            while True:
                await call.send(b"")
                await clock.sleep(1.0)

        peer.streaming(METHOD, tick)
        remote = RemoteEngine(peer.peer, caller, clock)

        async def collect() -> list[Chunk]:
            return [chunk async for chunk in remote.generate(CHAT)]

        waiting = asyncio.ensure_future(collect())
        while not waiting.done() and clock.monotonic() < 2 * STALL_S:
            await clock.advance(0.5)
            for _ in range(10):
                await asyncio.sleep(0)
        with pytest.raises(LinkClosed, match="about to answer"):
            await waiting
        assert clock.monotonic() >= STALL_S

    run(test)


def test_tokens_nobody_believed_earn_no_credit() -> None:
    async def test() -> None:
        clock = VirtualClock()
        mesh = LocalMesh(clock)
        caller, peer = mesh.join(), mesh.join()

        async def offer(_: object, body: memoryview) -> bytes:
            return encoded({"cards": [{"id": "tiny"}]})

        async def flood(_: object, call: CallStream) -> None:
            await call.send(encoded([{"token_ids": list(range(100_000))}]))

        peer.unary(MODELS, offer)
        peer.streaming(METHOD, flood)
        accounts = Accounts(Limits())
        neighbours = Neighbours(caller, clock, accounts, lambda: [Sighting(peer.peer)], dict)
        assert await neighbours.meet([peer.peer], "tiny")
        with pytest.raises(LocalError):
            await ask(list(neighbours.providers()))
        assert accounts.snapshot()[peer.peer].received == 0

    run(test)


@pytest.mark.parametrize("name", ["\x1b[2Jtiny", "tiny\n", "\u202eynit", "x" * 201, ""])
def test_an_offer_has_names_that_can_be_shown(name: str) -> None:
    assert read_offer(encoded({"cards": [{"id": "tiny"}]})) == Offer((ModelCard("tiny"),))
    with pytest.raises(PeerFault):
        read_offer(encoded({"cards": [{"id": name}]}))


def test_an_offer_is_not_megabytes() -> None:
    with pytest.raises(PeerFault, match="at most"):
        read_offer(bytes(10_000_000))


def test_resume_of_our_own_client_is_still_its_own_fault() -> None:
    """The engine's word on a resume that the caller of the router made up is final."""

    async def test() -> None:
        engine = make_engine()
        own = provider("local", engine.generate, "local", load=IDLE)

        with pytest.raises(InvalidRequest, match="vocabulary"):
            await ask([own], replace(CHAT, resume=Resume((2**31 - 1,))))
        await engine.stop()

    run(test)
