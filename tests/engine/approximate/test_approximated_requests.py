"""Requests that leave something out, on real kernels: what a budget must and must not change."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.errors import InvalidRequest
from shoal.core.request import Approximation, KvMethod, Request, Sampling
from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import NOTHING, Draft, Drafter, Want
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.engine.sequence import Sequence
from shoal.kernels.executor import KvType
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

    def __init__(
        self, num_blocks: int = 64, family: Family = "llama", drafter: Drafter | None = None, kv_type: KvType = "f16",
        **limits: Any,
    ) -> None:  # fmt: skip
        self.runner = NativeRunner(checkpoint(family), num_blocks=num_blocks, block_size=16, kv_type=kv_type, threads=1)
        tokenizer = load_tokenizer(checkpoint().tokenizer)
        scheduler = replace(SchedulerConfig(block_size=16, num_blocks=num_blocks), **limits)
        config = EngineConfig("tiny", context_length=1024, num_layers=6, scheduler=scheduler)
        language = Language(tokenizer, ChatTemplate(checkpoint().chat_template, tokenizer))
        self.engine = Engine(config, self.runner, language, VirtualClock(), drafter)

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


WISHES = [
    Approximation(kv_budget=40), Approximation(kv_budget=64, kv_method="oracle"),
    Approximation(kv_budget=33, kv_method="snapkv"), Approximation(kv_budget=48, kv_method="streaming"),
    Approximation(prompt_budget=80), Approximation(prompt_budget=70, prompt_method="random"),
    Approximation(prompt_budget=100, kv_budget=32), Approximation(core_neurons=0.4),
    Approximation(kv_budget=32, core_neurons=0.4), Approximation(prompt_budget=100, kv_budget=32, core_neurons=0.7),
]  # fmt: skip


def preempt_all_every(num_steps: int, house: House) -> list[Sequence]:
    """From now on whoever runs loses its blocks every so many steps; returns the list of who did."""
    worker, steps, preempted = house.engine._worker, itertools.count(1), list[Sequence]()
    step = worker.step

    def then_preempt() -> bool:
        is_busy = step()
        if next(steps) % num_steps == 0:
            for seq in [seq for seq in worker.scheduler._running if seq.num_pending]:
                worker.scheduler.restart(seq)
                preempted.append(seq)
        return is_busy

    worker.step = then_preempt  # type: ignore[method-assign]
    return preempted


@pytest.mark.parametrize(("wish", "kv_type"), [*((wish, "f16") for wish in WISHES), (WISHES[0], "int8")], ids=repr)
def test_an_answer_is_the_same_alone_in_company_and_after_preemption(wish: Approximation, kv_type: KvType) -> None:
    """Whole and approximated requests in one engine with hardly any room: each answer as if it were alone."""
    prompts = [PROMPT, OTHER, PROMPT[::-1]]
    alone: list[Any] = []
    for prompt in prompts:

        async def one(house: House, prompt: tuple[int, ...] = prompt) -> None:
            alone.append((await house.ask(wish, prompt), await house.ask(None, prompt)))

        serve(one, kv_type=kv_type)

    async def together(house: House) -> None:
        preempted = preempt_all_every(9, house)
        found = await asyncio.gather(*(house.ask(asked, prompt) for prompt in prompts for asked in (wish, None)))
        assert list(zip(found[::2], found[1::2], strict=True)) == alone
        assert len(preempted) > 10

    serve(together, num_blocks=26, max_batch_tokens=64, kv_type=kv_type)


@pytest.mark.parametrize("wish", WISHES, ids=repr)
def test_nobody_else_sees_what_was_left_out(wish: Approximation) -> None:
    """The prefix cache serves the whole prompt before and after, and never what an approximation computed."""

    async def test(house: House) -> None:
        before = await house.chunks(None)
        first = await house.chunks(wish)
        answer = tuple(token for chunk in first for token in chunk.token_ids)
        again = await house.chunks(wish)
        assert logprobs(first) == logprobs(again)
        longer = (*PROMPT, *answer)  # what the approximated answer computed must not serve this
        continued = await house.chunks(None, longer)
        assert logprobs(await house.chunks(None)) == logprobs(before)
        fresh.append((logprobs(continued), longer))

    fresh: list[tuple[list[float], tuple[int, ...]]] = []
    serve(test)

    async def check(house: House) -> None:
        assert logprobs(await house.chunks(None, fresh[0][1])) == fresh[0][0]

    serve(check)


@pytest.mark.parametrize("wish", [Approximation(kv_budget=40), Approximation(core_neurons=0.4)], ids=repr)
def test_choices_of_one_request_are_approximated_each(wish: Approximation) -> None:
    async def test(house: House) -> None:
        both = await house.chunks(wish, n=2, temperature=1.0)
        tokens = [[t for chunk in both if chunk.index == i for t in chunk.token_ids] for i in range(2)]
        assert tokens[0] != tokens[1]
        assert tokens[0] == list(await house.ask(wish, temperature=1.0))

    serve(test)


def test_a_compressed_cache_is_small_while_it_answers() -> None:
    """150 tokens take 10 blocks; a budget of 32 takes 2, and the answer what is left of them and more."""

    async def test(house: House) -> None:
        worker, sizes = house.engine._worker, list[tuple[int, int]]()
        step = worker.step

        def then_look() -> bool:
            is_busy = step()
            sizes.extend((seq.num_computed, len(seq.blocks)) for seq in worker.scheduler._running)
            return is_busy

        worker.step = then_look  # type: ignore[method-assign]
        await house.ask(Approximation(kv_budget=32))
        assert (150, 10) in sizes  # paused: the prompt is whole
        assert {(tokens, blocks) for tokens, blocks in sizes if tokens > 150} == {
            (tokens, -(-(tokens - 150 + 32) // 16)) for tokens in range(151, 173)
        }

    serve(test)


REFUSED = [
    (Approximation(kv_budget=8), "kv_budget"), (Approximation(prompt_budget=10), "prompt_budget"),
    (Approximation(core_neurons=1.5), "core_neurons"), (Approximation(kv_budget=140), "kv_budget"),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "param"), REFUSED, ids=repr)
def test_what_cannot_be_done_is_refused_by_name(wish: Approximation, param: str) -> None:
    async def test(house: House) -> None:
        with pytest.raises(InvalidRequest, match=param) as caught:
            await house.ask(wish, tokens=2)
        assert caught.value.param == param

    serve(test, num_blocks=12)


@pytest.mark.parametrize(
    ("family", "wish", "param"),
    [
        ("gemma2", Approximation(kv_budget=32), "kv_budget"),
        ("mixtral", Approximation(core_neurons=0.5), "core_neurons"),
        ("mixtral", Approximation(prompt_budget=70), "prompt_budget"),
    ],
)
def test_networks_that_cannot_refuse_by_name(family: Family, wish: Approximation, param: str) -> None:
    async def test(house: House) -> None:
        with pytest.raises(InvalidRequest, match=param):
            await house.ask(wish)

    serve(test, family=family)


def test_a_runner_that_cannot_approximate_refuses() -> None:
    async def main() -> None:
        house = House()
        await house.engine.stop()
        config = EngineConfig("tiny", 1024, 2, SchedulerConfig(block_size=4, num_blocks=64))
        house.engine = Engine(config, FakeRunner(num_blocks=64, block_size=4), house.engine._language)
        for wish in (Approximation(kv_budget=20), Approximation(prompt_budget=70), Approximation(core_neurons=0.5)):
            with pytest.raises(InvalidRequest, match="native"):
                await house.ask(wish)
        assert len(await house.ask(Approximation())) == 24
        await house.engine.stop()

    asyncio.run(main())


def test_cancelling_midway_leaves_nothing() -> None:
    async def test(house: House) -> None:
        for wish in WISHES:
            sampling = Sampling(temperature=0.0, max_tokens=500, ignore_eos=True)
            stream = house.engine.generate(Request("c", "tiny", PROMPT, sampling, approximation=wish))
            async for _ in stream:
                break
            await stream.aclose()  # type: ignore[attr-defined]
            assert await house.used() == 0

    serve(test)


class HalfKnowingDrafter:
    """Drafts the rest of one known answer, whatever the prompt became, and every other time its last token is wrong."""

    name = "half-knowing"

    def __init__(self, answer: tuple[int, ...]) -> None:
        self._answer, self._calls = answer, itertools.count()

    def propose(self, wants: list[Want], times: StepTimes) -> list[Draft]:
        return [self._draft(want) for want in wants]

    def learn(self, seq: Sequence, num_accepted: int) -> None: ...

    def forget(self, seq: Sequence, output: Any) -> None: ...

    def close(self) -> None: ...

    def _draft(self, want: Want) -> Draft:
        known = tuple(want.seq.tokens)
        made = max((n for n in range(1, len(self._answer)) if known[-n:] == self._answer[:n]), default=0)
        tokens = list(self._answer[made : made + min(4, want.most)])
        if not made or not tokens:
            return NOTHING
        tokens[-1] = (tokens[-1] + next(self._calls) % 2) % 256
        return Draft(tuple(tokens), (1.0,) * len(tokens), "known", 64)


@pytest.mark.parametrize("wish", WISHES, ids=repr)
def test_drafts_change_no_approximated_answer(wish: Approximation) -> None:
    """Where keys or neurons are left out nobody drafts; a shortened prompt is a prompt like any other."""
    found: list[list[Chunk]] = []

    async def plain(house: House) -> None:
        found.append(await house.chunks(wish, tokens=60))

    serve(plain)
    answer = tuple(token for chunk in found[0] for token in chunk.token_ids)

    async def drafted(house: House) -> None:
        assert logprobs(await house.chunks(wish, tokens=60)) == logprobs(found[0])
        stats, is_whole = house.engine.stats(), wish.kv_budget is None and wish.core_neurons is None
        assert (stats.draft_accepted_total > 0, stats.draft_tokens_total > 0) == (is_whole, is_whole)

    serve(drafted, drafter=HalfKnowingDrafter(answer))
