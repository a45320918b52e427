"""Whoever fails, wherever in the answer: the caller gets the answer that one engine would have given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from fleet_houses import BUSY, CHAT, IDLE, Dying, make_engine, provider

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LinkClosed,
    LocalError,
    ModelNotFound,
    Overloaded,
    PeerFault,
    ShoalError,
    Unavailable,
)
from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.request import Request, Resume
from shoal.engine.engine import Engine
from shoal.fleet.affinity import Affinity
from shoal.fleet.health import Health
from shoal.fleet.provider import Provider
from shoal.fleet.route import Decision, Router


class Desk:
    """A router and what it decided."""

    def __init__(self, *providers: Provider) -> None:
        self.providers = list(providers)
        self.clock = VirtualClock()
        self.decisions: list[Decision] = []
        self.router = Router(
            lambda: self.providers, self.clock, self.decisions.append, lambda *_: True, Health(), Affinity()
        )

    async def ask(self, request: Request = CHAT) -> list[Chunk]:
        return [chunk async for chunk in self.router.generate(request)]


def whole(chunks: list[Chunk]) -> dict[int, tuple[str, tuple[int, ...], str | None]]:
    indices = sorted({chunk.index for chunk in chunks})
    return {
        index: (
            "".join(chunk.text for chunk in chunks if chunk.index == index),
            tuple(token for chunk in chunks if chunk.index == index for token in chunk.token_ids),
            [chunk.finish_reason for chunk in chunks if chunk.index == index][-1],
        )
        for index in indices
    }


def with_engines(test: Callable[[Engine, Engine], Awaitable[None]]) -> None:
    async def main() -> None:
        one, two = make_engine(), make_engine()
        try:
            await test(one, two)
        finally:
            await one.stop()
            await two.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


REQUESTS = {
    "one choice": CHAT,
    "three choices": replace(CHAT, n=3),
    "greedy": replace(CHAT, sampling=replace(CHAT.sampling, temperature=0.0, seed=None)),
    "echo": replace(CHAT, prompt="once upon", echo=True),
    "resumed already": replace(CHAT, resume=Resume((5, 6, 7), 2)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_death_after_every_number_of_chunks(name: str) -> None:
    async def test(one: Engine, two: Engine) -> None:
        request = REQUESTS[name]
        expected = [chunk async for chunk in one.generate(request)]
        for after in range(len(expected)):
            dying = Dying(one.generate, after)
            desk = Desk(provider("a", dying, load=IDLE), provider("b", two.generate, load=BUSY))
            chunks = await desk.ask(request)
            assert whole(chunks) == whole(expected)
            assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            assert expected[-1].usage is not None
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == expected[-1].usage.completion_tokens
            assert [decision.provider for decision in desk.decisions] == ["a", "b"]
            assert dying.closed == 1

    with_engines(test)


def test_a_death_at_every_step_of_a_relay() -> None:
    """Each of six providers delivers three chunks and dies; the seventh ends the answer."""

    async def test(one: Engine, two: Engine) -> None:
        expected = [chunk async for chunk in one.generate(CHAT)]
        dying = [provider(f"p{n}", Dying((one, two)[n % 2].generate, 3)) for n in range(6)]
        chunks = await Desk(*dying, provider("z", two.generate)).ask()
        assert whole(chunks) == whole(expected)

    with_engines(test)


def test_without_a_seed_the_answer_still_hangs_together() -> None:
    """The router draws the seed, so that whoever goes on draws what the first would have drawn."""

    async def test(one: Engine, two: Engine) -> None:
        request = replace(CHAT, sampling=replace(CHAT.sampling, seed=None))
        seen: list[Request] = []

        async def watched(asked: Request) -> object:
            seen.append(asked)
            async for chunk in one.generate(asked):
                yield chunk

        desk = Desk(provider("a", Dying(watched, 5), load=IDLE), provider("b", two.generate, load=BUSY))  # type: ignore[arg-type]
        chunks = await desk.ask(request)
        assert whole(chunks) == whole([chunk async for chunk in one.generate(seen[0])])

    with_engines(test)


def test_text_without_token_ids_goes_on_from_its_text() -> None:
    async def test(one: Engine, _: Engine) -> None:
        script = ScriptedGenerate(lambda _: [Chunk(text="Hello"), Chunk(text=", wor"), LinkClosed("gone")])
        desk = Desk(provider("a", script, load=IDLE, resumes="text"), provider("b", one.generate, load=BUSY))
        chunks = await desk.ask()
        text = "".join(chunk.text for chunk in chunks)
        direct = [chunk async for chunk in one.generate(replace(CHAT, resume=Resume(text="Hello, wor")))]
        assert text == "Hello, wor" + "".join(chunk.text for chunk in direct)

    with_engines(test)


def ask_scripts(*scripts: object, request: Request = CHAT, **fields: object) -> tuple[Desk, list[Chunk] | ShoalError]:
    """Providers a, b, ... that follow these scripts, in this order of preference."""
    desk = Desk(
        *(
            provider(chr(97 + number), ScriptedGenerate(script), rtt_s=float(number), **fields)  # type: ignore[arg-type]
            for number, script in enumerate(scripts)
        )
    )

    async def main() -> list[Chunk] | ShoalError:
        try:
            return await desk.ask(request)
        except ShoalError as error:
            return error

    return desk, asyncio.run(main())


def test_what_cannot_go_on_is_not_asked_to() -> None:
    """Half an answer was delivered and the only other provider takes no prefix: an error, not a second beginning."""
    desk, result = ask_scripts(lambda _: [Chunk(text="half"), LinkClosed("gone")], words("whole"), resumes="no")
    assert isinstance(result, Unavailable), "a service that is not there now, not a fault of this one"
    assert "the provider that was asked failed (gone); try again in a moment" in str(result)
    assert [decision.provider for decision in desk.decisions] == ["a"]


@pytest.mark.parametrize("kind", ["local", "peer"])
def test_a_request_at_fault(kind: str) -> None:
    """Our own engine's word is final; a peer's is checked with another."""
    fault = InvalidRequest("top_p: no", "top_p")
    desk, result = ask_scripts(lambda _: [fault], words("ok"), kind=kind)
    if kind == "local":
        assert result is fault
    else:
        assert isinstance(result, list)
    assert not desk.router.health.failures


def test_all_peers_say_the_request_is_at_fault() -> None:
    fault = InvalidRequest("top_p: no", "top_p")
    _, result = ask_scripts(lambda _: [fault], lambda _: [InvalidRequest("other")])
    assert result is fault


def test_nobody_serves_it() -> None:
    _, result = ask_scripts(words("x"), request=replace(CHAT, model="huge"))
    assert isinstance(result, ModelNotFound)
    assert "tiny" in str(result)


def test_everybody_is_busy() -> None:
    _, result = ask_scripts(lambda _: [Overloaded("full", 7.0)], lambda _: [Overloaded("full", 3.0)])
    assert isinstance(result, Overloaded)


@pytest.mark.parametrize("kind", ["peer", "local"])
def test_a_seat_that_is_free_soon_is_waited_for(kind: str) -> None:
    """At peers, which have no queue of their own; a local engine that is full is full."""

    async def main() -> None:
        refusals: list[ShoalError] = [Overloaded("full", 1.0), Overloaded("full", 2.0)]
        generate = ScriptedGenerate(lambda request: [refusals.pop()] if refusals else words("here")(request))
        desk = Desk(provider("a", generate, kind=kind))  # type: ignore[arg-type]
        asking = asyncio.ensure_future(desk.ask())
        for _ in range(4):
            await desk.clock.advance(1.0)
        if kind == "local":
            with pytest.raises(Overloaded):
                await asking
        else:
            assert (await asking)[0].text == "here"
            assert [decision.outcome for decision in desk.decisions] == ["busy: full", "busy: full", "answered"]

    asyncio.run(main())


def test_an_answer_that_has_begun_waits_longer_for_a_seat() -> None:
    async def test(one: Engine, two: Engine) -> None:
        expected = [chunk async for chunk in one.generate(CHAT)]
        refusals: list[ShoalError] = [Overloaded("full", 50.0)]

        async def full_at_first(request: Request) -> AsyncIterator[Chunk]:
            if refusals:
                raise refusals.pop()
            async for chunk in two.generate(request):
                yield chunk

        desk = Desk(provider("a", Dying(one.generate, 3), load=IDLE), provider("b", full_at_first, load=BUSY))
        asking = asyncio.ensure_future(desk.ask())
        while refusals:
            await asyncio.sleep(0)
        for _ in range(60):
            await desk.clock.advance(1.0)
        assert whole(await asking) == whole(expected)

    with_engines(test)


@pytest.mark.parametrize(
    "script",
    [
        lambda _: [Chunk(text="a"), Chunk(index=3, text="b")],
        lambda _: [Chunk(text="a", finish_reason="stop"), Chunk(text="b")],
        lambda _: [Chunk(text="a")],
    ],
)
def test_a_peer_that_breaks_the_rules_of_chunks(script: object) -> None:
    desk, result = ask_scripts(script)
    assert isinstance(result, (PeerFault, LocalError, list))
    if isinstance(result, list):
        assert result[-1].finish_reason == "stop"
    else:
        assert "a" in desk.router.health.failures


def test_a_failed_provider_rests_and_comes_back() -> None:
    async def main() -> None:
        scripts = [LinkClosed("gone")]
        flaky = ScriptedGenerate(lambda request: [scripts.pop()] if scripts else words("back")(request))
        desk = Desk(provider("a", flaky, load=IDLE), provider("b", ScriptedGenerate(words("b")), load=BUSY))
        asked = []
        for pause in (0.0, 0.5, 1.0):
            await desk.clock.advance(pause)
            await desk.ask()
            asked.append(desk.decisions[-1].provider)
        assert asked == ["b", "b", "a"]

    asyncio.run(main())


def test_a_deadline_that_passed_is_not_tried_elsewhere() -> None:
    desk, result = ask_scripts(lambda _: [DeadlineExceeded("late")], words("x"), request=replace(CHAT, deadline=-1.0))
    assert isinstance(result, DeadlineExceeded)
    assert len(desk.decisions) == 1


def test_closing_cancels_whoever_answers() -> None:
    async def main() -> None:
        script = ScriptedGenerate(lambda _: [Chunk(text="a", token_ids=(1,)), asyncio.Event()])
        desk = Desk(provider("a", script))
        answer = desk.router.generate(replace(CHAT, n=1))
        await anext(answer)
        await answer.aclose()  # type: ignore[attr-defined]
        assert script.cancelled == ["r"]
        assert desk.decisions[0].outcome == "cancelled"

    asyncio.run(main())


def test_the_conversation_stays_where_its_prefix_is() -> None:
    async def main() -> None:
        desk = Desk(
            provider("a", ScriptedGenerate(words("x")), load=IDLE),
            provider("b", ScriptedGenerate(words("x")), load=IDLE),
        )
        long = replace(CHAT, prompt="a long story " * 400)
        desk.router.affinity.note("b", long)
        await desk.ask(long)
        await desk.ask(replace(long, prompt="z" + long.prompt))  # type: ignore[operator]
        assert [decision.provider for decision in desk.decisions] == ["b", "a"]

    asyncio.run(main())


def test_a_model_nobody_here_serves_is_looked_for_once() -> None:
    async def main() -> None:
        desk = Desk()
        looked: list[str] = []

        async def discover(model: str) -> bool:
            looked.append(model)
            if model == "tiny":
                desk.providers.append(provider("found", ScriptedGenerate(words("x"))))
            return model == "tiny"

        desk.router.discover = discover
        assert (await desk.ask())[0].text == "x"
        with pytest.raises(ModelNotFound):
            await desk.ask(replace(CHAT, model="none"))
        assert looked == ["tiny", "none"]

    asyncio.run(main())
