"""An answer says who computed it: this node's own word, whatever the providers claim."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fleet_houses import BUSY, CHAT, IDLE, provider

from shoal.core.chunk import Chunk, Usage
from shoal.core.clock import VirtualClock
from shoal.core.errors import LinkClosed
from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.request import Request
from shoal.fleet.affinity import Affinity
from shoal.fleet.health import Health
from shoal.fleet.provider import Provider
from shoal.fleet.route import Router


def who(*providers: Provider, request: Request = CHAT) -> tuple[str, ...]:
    """The providers named in the answer's usage."""
    router = Router(lambda: providers, VirtualClock(), lambda _: None, lambda *_: True, Health(), Affinity())

    async def ask() -> list[Chunk]:
        return [chunk async for chunk in router.generate(request)]

    usage = asyncio.run(ask())[-1].usage
    assert usage is not None
    return usage.providers


def dying(*texts: str) -> ScriptedGenerate:
    chunks = [Chunk(text=text, token_ids=(index,)) for index, text in enumerate(texts)]
    return ScriptedGenerate(lambda _: [*chunks, LinkClosed("gone")])


@pytest.mark.parametrize("name", ["local", "upstream:shop"])
def test_one_provider(name: str) -> None:
    assert who(provider(name, ScriptedGenerate(words("a", "b")))) == (name,)
    assert who(provider(name, ScriptedGenerate(words("a"))), request=replace(CHAT, n=3)) == (name,)


def test_whoever_went_on_is_named_after_whoever_began() -> None:
    rest = provider("b", ScriptedGenerate(words("c")), load=BUSY)
    assert who(provider("a", dying("a", "b"), load=IDLE), rest) == ("a", "b")


def test_whoever_failed_before_a_word_computed_nothing() -> None:
    rest = provider("b", ScriptedGenerate(words("c")), load=BUSY)
    assert who(provider("a", dying(), load=IDLE), rest) == ("b",)


def test_a_provider_cannot_speak_for_others() -> None:
    lie = Chunk(text="x", finish_reason="stop", usage=Usage(1, 1, providers=("local", "somebody")))
    assert who(provider("liar", ScriptedGenerate(lambda _: [lie]))) == ("liar",)
