"""A peer that is served and means harm: it holds no seat for nothing, pays for what it leaves, asks within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from fleet_houses import CHAT

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.errors import ContextTooLong, InvalidRequest, Overloaded, Unauthorized
from shoal.core.fakes import Script, ScriptedGenerate, words
from shoal.core.request import Constraint, Request, Tool
from shoal.core.service import ModelCard
from shoal.fleet.accounts import Accounts, Limits
from shoal.fleet.remote import RemoteEngine
from shoal.fleet.sharing import MAX_CONSTRAINT_CHARS, TAKE_S, Sharing
from shoal.fleet.wire import METHOD, write_request
from shoal.mesh.calls import CallOptions, CallStream, Incoming
from shoal.mesh.fakes import LocalMesh, LocalPeer
from shoal.mesh.peer_id import PeerId


class House:
    """One peer that serves a script to whoever `join`s."""

    def __init__(self, script: Script, limits: Limits | None = None) -> None:
        self.clock = VirtualClock()
        self.mesh = LocalMesh(self.clock)
        self.server = self.mesh.join()
        self.generate = ScriptedGenerate(script)
        self.accounts = Accounts(limits or Limits("public", max_concurrent=2, max_concurrent_total=4))
        cards: Callable[[], Sequence[ModelCard]] = lambda: (ModelCard("tiny", context_length=512),)  # noqa: E731
        self.sharing = Sharing(self.generate, cards, self.accounts, lambda _: False, self.clock)
        self.sharing.register(self.server)

    async def ask(self, caller: LocalPeer, request: Request = CHAT) -> list[Chunk]:
        engine = RemoteEngine(self.server.peer, caller, self.clock)
        return [chunk async for chunk in engine.generate(request)]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


def test_calls_without_a_request_take_no_seat() -> None:
    async def test() -> None:
        house = House(words("fine"))
        held = []
        for _ in range(6):
            mallory = house.mesh.join()
            for _ in range(4):
                held.append(mallory.stream(house.server.peer, METHOD, CallOptions(600.0)))
                await held[-1].__aenter__()
        await settle()
        assert (await house.ask(house.mesh.join()))[0].text == "fine"
        for call in held:
            await call.__aexit__(None, None, None)

    run(test)


class Deaf:
    """A call whose other side sent a request and takes nothing."""

    def __init__(self, request: bytes) -> None:
        self.request: bytes | None = request

    async def send(self, message: object) -> None:
        await asyncio.Event().wait()

    async def end(self) -> None:
        """Nothing to do."""

    def __aiter__(self) -> Deaf:
        return self

    async def __anext__(self) -> memoryview:
        if self.request is None:
            raise StopAsyncIteration
        found, self.request = self.request, None
        return memoryview(found)


def test_a_peer_that_takes_nothing_loses_its_seat() -> None:
    async def test() -> None:
        house = House(words("a", "b"))
        call: CallStream = Deaf(write_request(CHAT, 0.0))
        incoming = Incoming(PeerId(b"m" * 32), METHOD, None, lambda: pytest.fail("not asked"))
        answering = asyncio.ensure_future(house.sharing.answer(incoming, call))
        await settle()
        account = house.accounts.snapshot()[incoming.peer]
        assert account.running == 1
        await house.clock.advance(TAKE_S + 1)
        await settle()
        assert answering.done()
        assert answering.exception() is not None
        assert account.running == 0

    run(test)


def test_every_choice_takes_a_seat() -> None:
    async def test() -> None:
        house = House(lambda _: [Chunk(text="a", token_ids=(1,)), asyncio.Event()])
        one, two, three = (house.mesh.join() for _ in range(3))
        with pytest.raises(InvalidRequest, match="at most 2"):
            await house.ask(one, replace(CHAT, n=10_000))
        asked = [asyncio.ensure_future(house.ask(peer, replace(CHAT, n=2))) for peer in (one, two)]
        await settle()
        assert [house.accounts.snapshot()[peer.peer].running for peer in (one, two)] == [2, 2]
        with pytest.raises(Overloaded):
            await house.ask(three)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await settle()
        assert [house.accounts.snapshot()[peer.peer].running for peer in (one, two)] == [0, 0]

    run(test)


def test_whoever_leaves_before_the_first_word_pays_for_the_prompt() -> None:
    async def test() -> None:
        house = House(lambda _: [asyncio.Event()], Limits("public", tokens_per_minute=1000.0))
        mallory = house.mesh.join()
        prompt = replace(CHAT, prompt=tuple(range(300)))
        for _ in range(4):
            asked = asyncio.ensure_future(house.ask(mallory, prompt))
            await settle()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await settle()
        assert house.accounts.snapshot()[mallory.peer].given == 1200
        with pytest.raises(Overloaded, match="tokens a minute"):
            await house.ask(mallory, prompt)

    run(test)


def test_what_no_engine_should_see_of_a_peer_is_refused_before_it() -> None:
    async def test() -> None:
        house = House(words("fine"))
        caller = house.mesh.join()
        long = "(a|b)" * MAX_CONSTRAINT_CHARS
        for kind in ("json_schema", "regex", "lark"):
            with pytest.raises(InvalidRequest, match="grammar"):
                await house.ask(caller, replace(CHAT, constraint=Constraint(kind, long)))
        with pytest.raises(InvalidRequest, match="grammar"):
            await house.ask(caller, replace(CHAT, tools=(Tool("t", parameters={"x": long}),)))
        with pytest.raises(ContextTooLong, match="bytes"):
            await house.ask(caller, replace(CHAT, prompt="word " * 100_000))
        for name in ("", "\x1b[2J", "a\nWARNING"):
            with pytest.raises(InvalidRequest, match="request id"):
                await house.ask(caller, replace(CHAT, request_id=name))
        assert not house.generate.seen
        assert house.accounts.snapshot()[caller.peer].given == 0
        refused = House(words("fine"), Limits())
        with pytest.raises(Unauthorized):
            await refused.ask(refused.mesh.join())
        assert not refused.accounts.snapshot(), "a stranger leaves no account"

    run(test)
