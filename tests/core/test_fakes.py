"""The fakes keep the rules of the seams they stand for."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from shoal.core.chunk import Chunk
from shoal.core.errors import InvalidRequest, LocalError, Overloaded
from shoal.core.fakes import HashSession, ScriptedGenerate, words
from shoal.core.request import Request


def test_a_script_ends_each_choice_once_and_carries_usage_last() -> None:
    async def main() -> list[Chunk]:
        generate = ScriptedGenerate(words("Hel", "lo"))
        chunks = [chunk async for chunk in generate(Request("r", "m", "hi", n=2))]
        assert (generate.finished, generate.cancelled) == (["r"], [])
        return chunks

    chunks = asyncio.run(main())
    for index in (0, 1):
        mine = [chunk for chunk in chunks if chunk.index == index]
        assert "".join(chunk.text for chunk in mine) == "Hello"
        assert [chunk.finish_reason for chunk in mine] == [None, None, "stop"]
    assert [chunk.usage is not None for chunk in chunks] == [False] * 5 + [True]


def test_closing_a_script_is_a_cancellation_and_an_error_is_not() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        generate = ScriptedGenerate(lambda request: [Chunk(text="a"), gate])
        stream = generate(Request("r", "m", "hi"))
        assert (await anext(stream)).text == "a"
        await stream.aclose()  # type: ignore[attr-defined]
        assert generate.cancelled == ["r"]
        failing = ScriptedGenerate(lambda request: [Overloaded("full")])
        with pytest.raises(Overloaded):
            await anext(failing(Request("q", "m", "hi")))
        assert failing.cancelled == []

    asyncio.run(main())


def test_a_hash_session_depends_on_its_whole_context_and_forks_are_apart() -> None:
    async def main() -> None:
        one = HashSession()
        first = await one.append([1, 2])
        assert np.isclose(np.exp(first).sum(), 1, atol=1e-5)
        two = await one.fork()
        assert np.array_equal(await two.append([3]), await one.append([3]))
        await two.append([4])
        assert (one.num_tokens, two.num_tokens) == (3, 4)
        scores = await one.score([4, 5])
        assert scores[1] == pytest.approx(float((await two.append([]))[5]))
        assert (await one.hidden([4, 5], 1)).shape == (2, 32)
        with pytest.raises(InvalidRequest, match="32"):
            await one.append([32])
        await one.drop()
        await one.drop()
        with pytest.raises(LocalError, match="dropped"):
            await one.score([1])

    asyncio.run(main())
