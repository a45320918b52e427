"""Who is asked, what is charged, and what may be remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shoal.core.chunk import Chunk, TokenLogprob
from shoal.core.errors import InvalidRequest, LocalError
from shoal.core.request import Request, Sampling
from shoal.core.usage import Measured, Usage
from shoal.think.answers import Member
from shoal.think.cascade import Memory, cascade, remembered_by

GREEDY = Request("r", "cascade:a,b", "2+2?", Sampling(temperature=0.0))


class Sure:
    """Says `text` with a log-probability of `logprob` at each of two tokens, for one joule."""

    def __init__(self, text: str, logprob: float, error: Exception | None = None) -> None:
        self.text, self.logprob, self.error, self.asked = text, logprob, error, 0

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        assert request.sampling.logprobs == 0
        tokens = (TokenLogprob(1, b"x", self.logprob), TokenLogprob(2, b"y", self.logprob))
        yield Chunk(text=self.text, token_ids=(1, 2), logprobs=tokens, finish_reason="stop")
        yield Chunk(usage=Usage(prompt_tokens=3, completion_tokens=2, energy_j=Measured(1.0, "rapl")))


def members(*sures: Sure) -> list[Member]:
    return [Member(f"m{i}", sure.generate, lambda request: request) for i, sure in enumerate(sures)]


async def run(sures: list[Sure], memory: Memory | None = None, request: Request = GREEDY) -> tuple[str, Usage]:
    chunks = [chunk async for chunk in cascade(members(*sures), -0.5, memory)(request)]
    assert chunks[-1].usage is not None
    assert all(not chunk.logprobs for chunk in chunks)
    return "".join(chunk.text for chunk in chunks), chunks[-1].usage


def test_a_sure_answer_ends_it() -> None:
    small, large = Sure("4", -0.1), Sure("four", -0.1)
    text, usage = asyncio.run(run([small, large]))
    assert (text, large.asked, usage.energy_j) == ("4", 0, Measured(1.0, "rapl"))


def test_an_unsure_one_is_charged_and_the_next_is_asked() -> None:
    small, large = Sure("5", -0.9), Sure("4", -3.0)
    text, usage = asyncio.run(run([small, large]))
    assert text == "4"
    assert (usage.completion_tokens, usage.energy_j) == (4, Measured(2.0, "rapl"))


def test_a_member_that_fails_is_passed_over_and_the_last_ones_error_is_everybodys() -> None:
    assert asyncio.run(run([Sure("", 0.0, LocalError("gone")), Sure("4", -9.0)]))[0] == "4"
    with pytest.raises(LocalError, match="gone"):
        asyncio.run(run([Sure("5", -9.0), Sure("", 0.0, LocalError("gone"))]))


def test_the_same_greedy_question_is_answered_from_memory_for_nothing() -> None:
    small, memory = Sure("4", -0.1), Memory()

    async def twice() -> tuple[str, Usage]:
        await run([small], memory)
        return await run([small], memory, GREEDY)

    text, usage = asyncio.run(twice())
    assert (text, small.asked) == ("4", 1)
    assert (usage.completion_tokens, usage.providers) == (0, ("remembered",))


def test_a_sampled_answer_is_not_remembered_and_a_seeded_one_is() -> None:
    assert remembered_by(Request("r", "m", "x")) is None
    seeded = Request("r", "m", "x", Sampling(seed=1))
    assert remembered_by(seeded) == remembered_by(Request("s", "m", "x", Sampling(seed=1), priority=3))
    assert remembered_by(seeded) != remembered_by(Request("r", "m", "x", Sampling(seed=2)))
    assert remembered_by(seeded) != remembered_by(Request("r", "m", "y", Sampling(seed=1)))


def test_the_memory_is_bounded_and_forgets_the_least_used() -> None:
    memory = Memory(size=2)
    asked = [Request("r", "m", text, Sampling(seed=1)) for text in "abc"]
    for request in asked[:2]:
        memory.keep(request, [Chunk(text="x")])
    assert memory.find(asked[0]) is not None
    memory.keep(asked[2], [Chunk(text="x")])
    assert memory.find(asked[1]) is None
    assert memory.find(asked[0]) is not None


def test_the_memory_is_bounded_in_bytes_and_keeps_no_chunk_for_each_token() -> None:
    memory = Memory(most_bytes=20_000)
    asked = [Request("r", "m", text, Sampling(seed=1)) for text in "abcd"]
    for request in asked[:3]:
        memory.keep(request, [Chunk(text="x" * 10, token_ids=(1,)) for _ in range(100)] + [Chunk(finish_reason="stop")])
    assert [memory.find(request) is None for request in asked[:3]] == [True, False, False]
    whole = memory.find(asked[2])
    assert whole == Chunk(text="x" * 1000, token_ids=(1,) * 100, finish_reason="stop")
    memory.keep(asked[3], [Chunk(text="x" * 20_000)])
    assert [memory.find(request) for request in asked] == [None] * 4
    assert memory._bytes == 0


def test_what_a_cascade_cannot_honour_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="logprobs: a cascade"):
        asyncio.run(run([Sure("4", 0.0)], None, Request("r", "m", "x", Sampling(logprobs=2))))
