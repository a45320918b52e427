"""An answer that goes on elsewhere is the answer that would have been: from every place where a chunk ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from shoal.core.chunk import Chunk
from shoal.core.errors import InvalidRequest
from shoal.core.request import Approximation, Constraint, Message, Request, Resume, Sampling
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.models.template import ChatTemplate
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer

SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}'
CHAT = Request("r", "tiny", (Message("user", "go on"),), Sampling(temperature=0.0, max_tokens=14, ignore_eos=True))
REQUESTS = {
    "greedy": CHAT,
    "seeded": replace(CHAT, sampling=replace(CHAT.sampling, temperature=1.3, seed=11)),
    "penalties": replace(
        CHAT, sampling=replace(CHAT.sampling, temperature=1.0, seed=3, repetition_penalty=1.5, frequency_penalty=0.7)
    ),
    "logprobs": replace(CHAT, sampling=replace(CHAT.sampling, logprobs=2)),
    "text": replace(CHAT, prompt="once upon"),
    "constraint": replace(
        CHAT, sampling=Sampling(temperature=1.0, seed=5, max_tokens=40), constraint=Constraint("json_schema", SCHEMA)
    ),
}


def make_engine() -> Engine:
    checkpoint = tiny_checkpoint("llama")
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    scheduler = SchedulerConfig(block_size=4, num_blocks=64)
    config = EngineConfig("tiny", context_length=1024, num_layers=2, scheduler=scheduler)
    language = Language(tokenizer, ChatTemplate(checkpoint.chat_template, tokenizer))
    return Engine(config, FakeRunner(num_blocks=64, block_size=4), language)


async def ask(engine: Engine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def whole(chunks: list[Chunk]) -> tuple[str, list[int], list[object], str | None]:
    return (
        "".join(chunk.text for chunk in chunks),
        [token for chunk in chunks for token in chunk.token_ids],
        [entry for chunk in chunks for entry in chunk.logprobs],
        chunks[-1].finish_reason,
    )


@pytest.mark.parametrize("name", REQUESTS)
def test_from_every_chunk(name: str) -> None:
    async def main() -> None:
        engine, request = make_engine(), REQUESTS[name]
        expected = await ask(engine, request)
        assert len(expected) > 3
        for cut in range(1, len(expected)):
            begun = expected[:cut]
            tokens = tuple(token for chunk in begun for token in chunk.token_ids)
            rest = await ask(engine, replace(request, resume=Resume(tokens)))
            assert whole(begun + rest) == whole(expected)
            usage, original = rest[-1].usage, expected[-1].usage
            assert usage is not None
            assert original is not None
            assert usage.completion_tokens == original.completion_tokens
            assert usage.prompt_tokens == original.prompt_tokens
        await engine.stop()

    asyncio.run(main())


def test_a_stop_string_across_the_cut() -> None:
    async def main() -> None:
        engine = make_engine()
        plain = await ask(engine, CHAT)
        text = "".join(chunk.text for chunk in plain)
        stop = text[len(text) // 2 - 3 : len(text) // 2 + 3]
        request = replace(CHAT, sampling=replace(CHAT.sampling, stop=(stop,)))
        expected = await ask(engine, request)
        assert expected[-1].finish_reason == "stop"
        for cut in range(1, len(expected)):
            tokens = tuple(token for chunk in expected[:cut] for token in chunk.token_ids)
            rest = await ask(engine, replace(request, resume=Resume(tokens)))
            assert whole(expected[:cut] + rest) == whole(expected)
        await engine.stop()

    asyncio.run(main())


def test_one_choice_of_several() -> None:
    async def main() -> None:
        engine = make_engine()
        request = replace(REQUESTS["seeded"], n=3)
        chunks = [chunk for chunk in await ask(engine, request) if chunk.index == 2]
        tokens = tuple(token for chunk in chunks[:3] for token in chunk.token_ids)
        rest = await ask(engine, replace(request, n=1, resume=Resume(tokens, choice=2)))
        assert {chunk.index for chunk in rest} == {2}
        assert whole(chunks[:3] + rest) == whole(chunks)
        await engine.stop()

    asyncio.run(main())


def test_from_text_alone() -> None:
    """Token ids unknown: the text goes on without a repeated or a lost character, held-back ones included."""

    async def main() -> None:
        engine = make_engine()
        stops = ("zq!", "\n\n#")
        request = replace(CHAT, sampling=replace(CHAT.sampling, stop=stops))
        for shown in ("Hello, wor", "about z", "wait\n\n"):
            rest = await ask(engine, replace(request, resume=Resume(text=shown)))
            tokens = load_tokenizer(tiny_checkpoint("llama").tokenizer).encode(shown, add_special=False)
            alone = await ask(engine, replace(request, resume=Resume(tuple(tokens))))
            held = max(shown.endswith(stop[:size]) * size for stop in stops for size in range(1, len(stop)))
            assert shown[len(shown) - held :] + whole(rest)[0] == whole(alone)[0]
            assert whole(rest)[1] == whole(alone)[1]
        await engine.stop()

    asyncio.run(main())


def test_a_later_choice_from_its_beginning() -> None:
    async def main() -> None:
        engine = make_engine()
        request = replace(REQUESTS["seeded"], n=2)
        second = [chunk for chunk in await ask(engine, request) if chunk.index == 1]
        assert whole(await ask(engine, replace(request, n=1, resume=Resume(choice=1)))) == whole(second)
        await engine.stop()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"resume": Resume((1,)), "n": 2}, "one choice"),
        ({"resume": Resume((1,)), "approximation": Approximation(kv_budget=8)}, "without echo or approximation"),
        ({"resume": Resume((10**6,))}, "outside the vocabulary"),
        ({"resume": Resume((1,), choice=-1)}, "choice"),
        ({"resume": Resume((5,) * 14)}, "limit is 14"),
        ({"resume": Resume((5, 5)), "constraint": Constraint("json_schema", SCHEMA)}, "not the beginning"),
    ],
)
def test_refusals(change: dict[str, object], says: str) -> None:
    async def main() -> None:
        engine = make_engine()
        with pytest.raises(InvalidRequest, match=says) as error:
            await ask(engine, replace(CHAT, **change))
        assert error.value.param == "resume"
        await engine.stop()

    asyncio.run(main())
