"""Requests that leave something out, on real kernels: what a budget must and must not change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import numpy as np
import pytest

from shoal.core.chunk import Chunk
from shoal.core.errors import InvalidRequest
from shoal.core.request import Approximation, KvMethod, Request, Sampling
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.models.checkpoint import Checkpoint
from shoal.models.config import Family
from shoal.models.native_runner import NativeRunner
from shoal.models.template import ChatTemplate
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer

METHODS: tuple[KvMethod, ...] = ("speckv", "snapkv", "streaming", "random", "oracle")
PROMPT = tuple(np.random.default_rng(0).integers(0, 256, 150).tolist())
OTHER = (*PROMPT[:100], *np.random.default_rng(1).integers(0, 256, 30).tolist())


@cache
def checkpoint(family: Family = "llama") -> Checkpoint:
    return tiny_checkpoint(family, shape=TinyShape(num_layers=6), storage="Q8_0")


class House:
    """An engine over the kernels."""

    def __init__(self, num_blocks: int = 64, family: Family = "llama", **limits: int) -> None:
        self.runner = NativeRunner(checkpoint(family), num_blocks=num_blocks, block_size=16, threads=1)
        tokenizer = load_tokenizer(checkpoint().tokenizer)
        scheduler = SchedulerConfig(block_size=16, num_blocks=num_blocks, **limits)
        config = EngineConfig("tiny", context_length=1024, num_layers=6, scheduler=scheduler)
        self.engine = Engine(
            config, self.runner, Language(tokenizer, ChatTemplate(checkpoint().chat_template, tokenizer))
        )

    async def ask(
        self, approximation: Approximation | None = None, prompt: tuple[int, ...] = PROMPT, **fields: Any
    ) -> tuple[int, ...]:
        """The tokens of choice 0, whole log-probabilities checked to come with each."""
        chunks = await self.chunks(approximation, prompt, **fields)
        return tuple(token for chunk in chunks if chunk.index == 0 for token in chunk.token_ids)

    async def chunks(
        self, approximation: Approximation | None, prompt: tuple[int, ...] = PROMPT, tokens: int = 24,
        temperature: float = 0.0, **fields: Any,
    ) -> list[Chunk]:  # fmt: skip
        sampling = Sampling(temperature=temperature, seed=3, max_tokens=tokens, ignore_eos=True, logprobs=1)
        request = Request(f"r{id(object())}", "tiny", prompt, sampling, approximation=approximation, **fields)
        return [chunk async for chunk in self.engine.generate(request)]

    async def used(self) -> int:
        worker = self.engine._worker
        await worker.call(worker.scheduler.check_integrity)
        return self.engine.stats().blocks_used


def serve(test: Callable[[House], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        house = House(**options)
        try:
            await test(house)
            assert await house.used() == 0
        finally:
            await house.engine.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def logprobs(chunks: list[Chunk]) -> list[float]:
    return [entry.logprob for chunk in chunks for entry in chunk.logprobs]


@pytest.mark.parametrize("wish", [
    *(Approximation(kv_budget=budget, kv_method=method) for method in METHODS for budget in (150, 4000)),
    Approximation(prompt_budget=150), Approximation(prompt_budget=200, kv_budget=150), Approximation(),
], ids=repr)  # fmt: skip
def test_a_budget_that_holds_everything_changes_nothing(wish: Approximation) -> None:
    async def test(house: House) -> None:
        whole = await house.chunks(None)
        budgeted = await house.chunks(wish)
        assert [chunk.token_ids for chunk in whole] == [chunk.token_ids for chunk in budgeted]
        assert logprobs(whole) == logprobs(budgeted)

    serve(test)


@pytest.mark.parametrize("method", METHODS)
def test_dropping_keys_changes_the_answer_and_frees_the_cache(method: KvMethod) -> None:
    async def test(house: House) -> None:
        whole = await house.chunks(None)
        dropped = await house.chunks(Approximation(kv_budget=32, kv_method=method))
        assert logprobs(whole)[0] == logprobs(dropped)[0]  # the first token is the whole model's
        assert logprobs(whole)[1:] != logprobs(dropped)[1:]
        assert dropped[-1].usage is not None
        assert dropped[-1].usage.prompt_tokens == 150

    serve(test)
