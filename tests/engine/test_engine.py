"""The engine over a runner whose logits hash what attention reads: a paging error changes an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.errors import (
    BadConfig,
    BadWeights,
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    LocalError,
    ModelNotFound,
    Overloaded,
    ShoalError,
    Unavailable,
)
from shoal.core.request import Constraint, Message, Request, Sampling
from shoal.engine.compiling import Compiler
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.models.template import ChatTemplate
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer

GREEDY = Sampling(temperature=0.0, max_tokens=12, ignore_eos=True)
SEEDED = Sampling(temperature=1.0, seed=7, max_tokens=12, ignore_eos=True)


@cache
def language() -> Language:
    checkpoint = tiny_checkpoint("llama")
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    return Language(tokenizer, ChatTemplate(checkpoint.chat_template, tokenizer))


class House:
    """An engine, its runner and its clock."""

    def __init__(self, num_blocks: int = 64, block_size: int = 4, **limits: int) -> None:
        self.runner = FakeRunner(num_blocks=num_blocks, block_size=block_size)
        self.clock = VirtualClock()
        scheduler = SchedulerConfig(block_size=block_size, num_blocks=num_blocks, **limits)
        config = EngineConfig("tiny", context_length=1024, num_layers=2, scheduler=scheduler)
        self.engine = Engine(config, self.runner, language(), self.clock)

    async def ask(self, request: Request) -> list[Chunk]:
        return [chunk async for chunk in self.engine.generate(request)]

    async def check_empty(self) -> None:
        """No block is used and the books are right, as the worker's own thread sees them."""
        worker = self.engine._worker
        await worker.call(worker.scheduler.check_integrity)
        assert self.engine.stats().blocks_used == 0
        assert (self.engine.stats().num_running, self.engine.stats().num_waiting) == (0, 0)


def serve(test: Callable[[House], Coroutine[Any, Any, None]], **options: int) -> None:
    async def main() -> None:
        house = House(**options)
        try:
            await test(house)
        finally:
            house.runner.gate.set()
            house.runner.reading.set()
            await house.engine.stop()
        assert house.runner.is_closed

    asyncio.run(asyncio.wait_for(main(), 60))


def ask(prompt: Any, sampling: Sampling = GREEDY, **fields: Any) -> Request:
    return Request(f"r-{prompt!r:.20}", "tiny", prompt, sampling, **fields)


def tokens_of(chunks: list[Chunk], index: int = 0) -> tuple[int, ...]:
    return tuple(token for chunk in chunks if chunk.index == index for token in chunk.token_ids)


async def inside(house: House) -> None:
    await asyncio.to_thread(house.runner.is_inside.wait)


async def ask_in_order(house: House, requests: list[Request]) -> list[asyncio.Task[list[Chunk]]]:
    """The first is held inside the runner, the others wait to be looked at, in this order."""
    house.runner.gate.clear()
    tasks = [asyncio.create_task(house.ask(requests[0]))]
    await inside(house)
    for count, request in enumerate(requests[1:], 1):
        tasks.append(asyncio.create_task(house.ask(request)))
        while len(house.engine._worker._inbox) < count:
            await asyncio.sleep(0)
    return tasks


PROMPTS = ["once upon a time there was", "once upon a time there wasn't", "x", tuple(range(40)), "once upon a midnight"]


def answers(sampling: Sampling, **options: int) -> list[tuple[int, ...]]:
    """Each prompt's answer, all asked at once."""
    found: list[tuple[int, ...]] = []

    async def test(house: House) -> None:
        tasks = await ask_in_order(house, [ask(prompt, sampling) for prompt in PROMPTS])
        house.runner.gate.set()
        chunks = await asyncio.gather(*tasks)
        found.extend(tokens_of(answer) for answer in chunks)
        await house.check_empty()
        if options.get("num_blocks", 64) < 20:
            assert house.engine.stats().preemptions_total > 0, "the pool is no longer tight enough to show preemption"

    serve(test, **options)
    return found


def alone(sampling: Sampling) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for prompt in PROMPTS:

        async def test(house: House, prompt: Any = prompt) -> None:
            found.append(tokens_of(await house.ask(ask(prompt, sampling))))

        serve(test)
    return found


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"block_size": 1, "num_blocks": 256},
        {"prefill_chunk": 3},
        {"max_running": 2, "max_batch_tokens": 5, "prefill_chunk": 4},
        {"num_blocks": 15},
        {"max_running": 1},
    ],
    ids=str,
)
def test_an_answer_does_not_depend_on_company_chunking_or_preemption(
    sampling: Sampling, options: dict[str, int]
) -> None:
    expected = alone(sampling)
    assert len(set(expected)) == len(PROMPTS)
    assert all(len(answer) == 12 for answer in expected)
    assert answers(sampling, **options) == expected


def test_a_cached_prefix_saves_its_rows_and_changes_nothing() -> None:
    async def test(house: House) -> None:
        first = await house.ask(ask(tuple(range(42))))
        before = len(house.runner.batches)
        second = await house.ask(ask(tuple(range(42))))
        assert tokens_of(second) == tokens_of(first)
        assert first[-1].usage is not None
        assert second[-1].usage is not None
        assert (first[-1].usage.cached_tokens, second[-1].usage.cached_tokens) == (0, 40)
        assert house.runner.batches[before].num_rows == 2
        assert house.engine.stats().cached_tokens_total == 40

    serve(test)


def test_a_cached_whole_prompt_still_computes_its_last_token() -> None:
    async def test(house: House) -> None:
        first, second = [await house.ask(ask(tuple(range(40)))) for _ in range(2)]
        assert tokens_of(second) == tokens_of(first)
        assert second[-1].usage is not None
        assert second[-1].usage.cached_tokens == 36

    serve(test)


def test_equal_prompts_at_once_compute_their_prefix_once() -> None:
    async def test(house: House) -> None:
        house.runner.gate.clear()
        asked = [asyncio.create_task(house.ask(ask(tuple(range(40))))) for _ in range(4)]
        await inside(house)
        house.runner.gate.set()
        assert len({tokens_of(chunks) for chunks in await asyncio.gather(*asked)}) == 1
        assert sum(batch.num_rows for batch in house.runner.batches) < 40 + 4 * (4 + 12)

    serve(test)


def test_choices_share_one_prefill_and_differ() -> None:
    async def test(house: House) -> None:
        chunks = await house.ask(ask(tuple(range(41)), SEEDED, n=3))
        answers = [tokens_of(chunks, index) for index in range(3)]
        assert len(set(answers)) == 3
        assert [len(answer) for answer in answers] == [12, 12, 12]
        assert house.runner.batches[0].num_rows == 41
        assert {batch.num_rows for batch in house.runner.batches[1:]} == {3}
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"] * 3
        assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].usage is not None
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (41, 36)
        assert answers[0] == tokens_of(await house.ask(ask(tuple(range(41)), SEEDED)))
        await house.check_empty()

    serve(test)


def test_text_is_the_tokens_text_and_messages_go_through_the_template() -> None:
    async def test(house: House) -> None:
        chunks = await house.ask(ask((Message("user", "hello"),)))
        shown = "".join(chunk.text for chunk in chunks)
        assert shown == language().tokenizer.decode(tokens_of(chunks))
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.prompt_tokens > len("hello")

    serve(test)


def test_echo_comes_first_in_every_choice() -> None:
    async def test(house: House) -> None:
        chunks = await house.ask(ask("hello", GREEDY, echo=True, n=2))
        for index in range(2):
            text = "".join(chunk.text for chunk in chunks if chunk.index == index)
            assert text == "hello" + language().tokenizer.decode(tokens_of(chunks, index))
        only = await house.ask(ask("hello", replace(GREEDY, max_tokens=0), echo=True))
        assert [(chunk.text, chunk.finish_reason) for chunk in only] == [("hello", "length")]
        assert only[0].usage is not None
        assert only[0].usage.prompt_tokens == 5

    serve(test)


def test_a_constraint_holds_for_every_choice() -> None:
    async def test(house: House) -> None:
        chunks = await house.ask(ask("n = ", Sampling(seed=3), n=3, constraint=Constraint("regex", "[0-9]{8}")))
        texts = ["".join(chunk.text for chunk in chunks if chunk.index == index) for index in range(3)]
        assert all(len(text) == 8 and text.isdigit() for text in texts)
        assert len(set(texts)) == 3

    serve(test)


def test_a_grammar_that_takes_too_long_is_refused_and_holds_up_nobody_who_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More hostile grammars than there are helper threads once stopped every request from being prepared."""
    may_end, num_begun = threading.Event(), list[str]()

    def slowly(self: Language, request: Request) -> None:
        num_begun.append(threading.current_thread().name)
        may_end.wait()

    monkeypatch.setattr(Language, "matcher", slowly)

    async def test(house: House) -> None:
        house.engine._compiler = Compiler(language(), limit_s=0.05)
        hostile = replace(ask("x"), constraint=Constraint("regex", "a", "guided_regex"))
        asked = [asyncio.create_task(house.ask(hostile)) for _ in range(40)]
        assert len(tokens_of(await house.ask(ask("meanwhile")))) == 12
        ends = await asyncio.gather(*asked, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, InvalidRequest)]
        assert [end.param for end in refused] == ["guided_regex"] * len(num_begun)
        assert sum(isinstance(end, Overloaded) for end in ends) == 40 - len(refused) > 0
        assert all(name.startswith("shoal-grammar") for name in num_begun)

    try:
        serve(test)
    finally:
        may_end.set()


def test_logprobs_are_those_of_the_runner() -> None:
    async def test(house: House) -> None:
        chunks = await house.ask(ask("hi", replace(GREEDY, logprobs=2)))
        logprobs = [entry for chunk in chunks for entry in chunk.logprobs]
        assert [entry.token_id for entry in logprobs] == list(tokens_of(chunks))
        session = await house.engine.session()
        expected = await session.append(language().tokenizer.encode("hi"))
        assert logprobs[0].logprob == pytest.approx(float(expected.max()), abs=1e-5)
        assert logprobs[0].top[0].token_id == int(expected.argmax())
        await session.drop()

    serve(test)


def test_cancelling_in_the_middle_frees_every_block_within_a_step() -> None:
    async def test(house: House) -> None:
        stream = house.engine.generate(ask(tuple(range(30)), replace(GREEDY, max_tokens=200), n=2))
        async for chunk in stream:
            if chunk.token_ids:
                break
        assert house.engine.stats().blocks_used > 0
        steps = len(house.runner.batches)
        await stream.aclose()  # type: ignore[attr-defined]
        await house.check_empty()
        assert len(house.runner.batches) < steps + 200, "the answer went on to its end"

    serve(test)


def test_a_cancelled_task_leaves_nothing_queued_running_or_prefilling() -> None:
    async def test(house: House) -> None:
        house.runner.gate.clear()
        tasks = [asyncio.create_task(house.ask(ask(tuple(range(n, n + 20))))) for n in range(5)]
        await inside(house)
        for task in tasks:
            task.cancel()
        house.runner.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await house.check_empty()
        assert len(tokens_of(await house.ask(ask("after that")))) == 12

    serve(test, max_running=2, prefill_chunk=4)


def test_a_deadline_ends_a_request_once_and_frees_it() -> None:
    async def test(house: House) -> None:
        house.runner.gate.clear()
        late = asyncio.create_task(house.ask(ask("late", deadline=house.clock.monotonic() + 5.0)))
        patient = asyncio.create_task(house.ask(ask("patient", deadline=house.clock.monotonic() + 50.0)))
        await inside(house)
        await house.clock.advance(5.0)
        house.runner.gate.set()
        with pytest.raises(DeadlineExceeded):
            await late
        assert len(tokens_of(await patient)) == 12
        await house.check_empty()

    serve(test)


def test_a_full_queue_refuses_and_serves_the_rest() -> None:
    async def test(house: House) -> None:
        tasks = await ask_in_order(house, [ask(f"request {n}") for n in range(7)])
        house.runner.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Exception)]
        assert len(refused) == 4
        assert all(isinstance(error, Overloaded) and error.retry_after_s > 0 for error in refused)
        await house.check_empty()

    serve(test, max_running=1, max_waiting=2)


def test_draining_refuses_new_work_and_ends_the_old() -> None:
    async def test(house: House) -> None:
        house.runner.gate.clear()
        old = asyncio.create_task(house.ask(ask("old")))
        await inside(house)
        draining = asyncio.create_task(house.engine.drain())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await house.ask(ask("new"))
        assert house.engine.stats().is_draining
        assert house.engine.not_ready() is not None
        house.runner.gate.set()
        assert len(tokens_of(await old)) == 12
        await draining
        assert house.runner.is_closed

    serve(test)


def test_stopping_fails_what_runs() -> None:
    async def test(house: House) -> None:
        house.runner.gate.clear()
        running = asyncio.create_task(house.ask(ask("running")))
        await inside(house)
        stopping = asyncio.create_task(house.engine.stop())
        await asyncio.sleep(0)
        house.runner.gate.set()
        with pytest.raises(Unavailable):
            await running
        await stopping

    serve(test)


def test_a_failing_runner_fails_everything_once_and_accepts_nothing_more() -> None:
    async def test(house: House) -> None:
        house.runner.gate.clear()
        tasks = [asyncio.create_task(house.ask(ask(f"request {n}", n=2))) for n in range(4)]
        await inside(house)
        house.runner.error = RuntimeError("the accelerator fell off the bus")
        house.runner.gate.set()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, LocalError)
            assert "fell off the bus" in str(result)
        assert "fell off the bus" in (house.engine.not_ready() or "")
        with pytest.raises(Unavailable):
            await house.ask(ask("after"))

    serve(test)


def test_a_slow_reader_holds_nobody_up() -> None:
    async def test(house: House) -> None:
        slow: AsyncIterator[Chunk] = house.engine.generate(ask("slow"))
        first = await anext(slow)
        assert len(tokens_of(await house.ask(ask("fast")))) == 12
        while house.engine.stats().num_running:  # the slow one's answer is complete, though nobody read it
            await asyncio.sleep(0)
        assert tokens_of([first, *[chunk async for chunk in slow]]) == tokens_of(await house.ask(ask("slow")))

    serve(test)


REFUSED: list[tuple[dict[str, Any], type[ShoalError], str | None]] = [
    ({"model": "other"}, ModelNotFound, "model"),
    ({"adapter": "nobody"}, ModelNotFound, "model"),
    ({"prompt": ()}, InvalidRequest, "prompt"),
    ({"prompt": (1, 5000)}, InvalidRequest, "prompt"),
    ({"prompt": (1, -1)}, InvalidRequest, "prompt"),
    ({"prompt": (1,) * 300}, ContextTooLong, "prompt"),
    ({"sampling": Sampling(max_tokens=255)}, ContextTooLong, "prompt"),
    ({"sampling": Sampling(max_tokens=0)}, InvalidRequest, "max_tokens"),
    ({"sampling": Sampling(temperature=-1.0)}, InvalidRequest, "temperature"),
    ({"sampling": Sampling(logprobs=1), "echo": True}, InvalidRequest, "echo"),
    ({"n": 0}, InvalidRequest, "n"),
    ({"n": 65}, InvalidRequest, "n"),
    ({"priority": 10**6}, InvalidRequest, "priority"),
    ({"receipt": True}, InvalidRequest, "receipt"),
    ({"constraint": Constraint("regex", "(")}, InvalidRequest, "response_format"),
    ({"constraint": Constraint("regex", "(", "guided_regex")}, InvalidRequest, "guided_regex"),
]


@pytest.mark.parametrize(("fields", "error", "param"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], error: type[ShoalError], param: str | None
) -> None:
    async def test(house: House) -> None:
        with pytest.raises(error) as caught:
            await house.ask(replace(ask((1, 2, 3)), **fields))
        assert getattr(caught.value, "param", None) == param
        await house.check_empty()

    serve(test)


def test_text_that_cannot_fit_is_refused_before_it_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizing megabytes takes seconds in which nothing else gets the interpreter."""

    async def test(house: House) -> None:
        monkeypatch.setattr(house.engine._preparer.language, "prompt", lambda request: pytest.fail("tokenized"))
        with pytest.raises(ContextTooLong, match="100000 characters"):
            await house.ask(replace(ask(()), prompt="x" * 100_000))

    serve(test)


def test_adapters_change_answers_and_leave_when_unused() -> None:
    async def test(house: House) -> None:
        engine, prompt = house.engine, tuple(range(40))
        plain = tokens_of(await house.ask(ask(prompt)))
        await engine.load_adapter("one", "/adapters/one")
        await engine.load_adapter("two", "/adapters/two")
        both = await asyncio.gather(*(house.ask(ask(prompt, adapter=name)) for name in (None, "one", "two")))
        assert tokens_of(both[0]) == plain
        assert len({tokens_of(chunks) for chunks in both}) == 3
        with pytest.raises(Unavailable):
            await engine.load_adapter("three", "/adapters/three")
        with pytest.raises(InvalidRequest):
            await engine.load_adapter("one", "/adapters/one")
        await engine.unload_adapter("one")
        assert engine.adapters == ("two",)
        with pytest.raises(BadWeights):
            await engine.load_adapter("one", "/broken")
        await engine.load_adapter("one", "/adapters/other")
        again = tokens_of(await house.ask(ask(prompt, adapter="one")))
        assert again not in {tokens_of(chunks) for chunks in both}, "an old adapter's keys and values were served"

    serve(test)


def test_dropping_an_adapter_waits_for_its_requests() -> None:
    async def test(house: House) -> None:
        await house.engine.load_adapter("one", "/adapters/one")
        expected = tokens_of(await house.ask(ask("hello", adapter="one")))
        house.runner.gate.clear()
        running = asyncio.create_task(house.ask(ask("hello", adapter="one")))
        await inside(house)
        dropping = asyncio.create_task(house.engine.unload_adapter("one"))
        await asyncio.sleep(0)
        house.runner.gate.set()
        assert tokens_of(await running) == expected
        await dropping
        assert house.runner.adapters == {}
        with pytest.raises(ModelNotFound):
            await house.ask(ask("hello", adapter="one"))
        with pytest.raises(ModelNotFound):
            await house.engine.unload_adapter("one")

    serve(test)


def test_requests_go_on_while_an_adapter_is_read() -> None:
    """Read on the step thread, a large adapter once stopped every stream for as long as its file took."""

    async def test(house: House) -> None:
        house.runner.reading.clear()
        loading = asyncio.create_task(house.engine.load_adapter("one", "/adapters/one"))
        await asyncio.to_thread(house.runner.is_reading.wait)
        assert len(tokens_of(await house.ask(ask("meanwhile")))) == 12
        assert house.engine.adapters == ()
        with pytest.raises(ModelNotFound):
            await house.ask(ask("too early", adapter="one"))
        house.runner.reading.set()
        await loading
        assert len(tokens_of(await house.ask(ask("now", adapter="one")))) == 12

    serve(test)


def test_of_two_loads_of_one_name_the_second_to_arrive_is_refused() -> None:
    async def test(house: House) -> None:
        house.runner.reading.clear()
        loads = [asyncio.create_task(house.engine.load_adapter("one", f"/adapters/{n}")) for n in range(2)]
        await asyncio.to_thread(house.runner.is_reading.wait)
        house.runner.reading.set()
        ends = await asyncio.gather(*loads, return_exceptions=True)
        assert sorted(str(type(end)) for end in ends) == sorted(map(str, (type(None), InvalidRequest)))
        assert len(house.runner.adapters) == 1

    serve(test)


@pytest.mark.parametrize("end", ["drain", "stop"])
@pytest.mark.parametrize("path", ["/adapters/one", "/broken"])
def test_an_adapter_that_is_still_being_read_holds_up_no_end(end: str, path: str) -> None:
    async def test(house: House) -> None:
        house.runner.reading.clear()
        loading = asyncio.create_task(house.engine.load_adapter("one", path))
        await asyncio.to_thread(house.runner.is_reading.wait)
        await getattr(house.engine, end)()
        assert house.runner.is_closed
        house.runner.reading.set()
        with pytest.raises(Unavailable, match="stopped"):
            await loading
        with pytest.raises(Unavailable):
            await house.engine.load_adapter("two", "/adapters/two")
        assert house.runner.adapters == {}

    serve(test)


def test_a_refused_request_gives_its_adapter_back_once() -> None:
    """Twice, and the slot was emptied under a running request, which failed the engine, or never at all."""

    async def test(house: House) -> None:
        await house.engine.load_adapter("one", "/adapters/one")
        scheduler, running = house.engine._worker.scheduler, None
        try:
            requests = [ask(f"{n}", adapter="one") for n in range(3)]
            running = await ask_in_order(house, requests)  # one inside, two more than the queue has room for
            house.runner.gate.set()
            ends = await asyncio.gather(*running, return_exceptions=True)
        finally:
            house.runner.gate.set()
        assert any(isinstance(end, Overloaded) for end in ends), scheduler.num_waiting
        await asyncio.wait_for(house.engine.unload_adapter("one"), 5)
        assert house.runner.adapters == {}

    serve(test, max_running=1, max_waiting=1)


@pytest.mark.parametrize("fails", [False, True])
def test_unloading_ends_with_the_engine_though_a_session_holds_the_adapter(fails: bool) -> None:
    async def test(house: House) -> None:
        await house.engine.load_adapter("one", "/adapters/one")
        session = await house.engine.session("one")
        unloading = asyncio.create_task(house.engine.unload_adapter("one"))
        while house.engine.adapters:
            await asyncio.sleep(0)
        if fails:
            house.runner.error = RuntimeError("out of luck")
            with pytest.raises(LocalError, match="out of luck"):
                await house.ask(ask("breaks it"))
        else:
            await house.engine.stop()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(unloading, 5)
        await session.drop()

    serve(test)


def test_a_failing_runner_ends_an_adapters_requests_its_loads_and_its_unloading() -> None:
    async def test(house: House) -> None:
        await house.engine.load_adapter("one", "/adapters/one")
        house.runner.gate.clear()
        asked = asyncio.create_task(house.ask(ask("breaks", adapter="one")))
        await inside(house)
        unloading = asyncio.create_task(house.engine.unload_adapter("one"))
        house.runner.error = RuntimeError("out of luck")
        house.runner.gate.set()
        ends = await asyncio.wait_for(asyncio.gather(asked, unloading, return_exceptions=True), 5)
        assert isinstance(ends[0], LocalError)
        assert ends[1] is None or isinstance(ends[1], ShoalError)
        with pytest.raises(Unavailable, match="out of luck"):
            await house.engine.load_adapter("two", "/adapters/two")

    serve(test)


def test_usage_times_come_from_the_clock() -> None:
    async def test(house: House) -> None:
        house.runner.gate.clear()
        asked = asyncio.create_task(house.ask(ask("tell me", replace(GREEDY, max_tokens=1))))
        await inside(house)
        await house.clock.advance(2.0)
        house.runner.gate.set()
        usage = (await asked)[-1].usage
        assert usage is not None
        assert (usage.queue_s, usage.ttft_s, usage.duration_s) == (0.0, 2.0, 2.0)
        assert house.engine.stats().step_s == 2.0

    serve(test)


def test_embeddings_are_unit_vectors_of_their_text_alone() -> None:
    async def test(house: House) -> None:
        texts = ["alpha", "beta", "a third text that is longer", "alpha"]
        together, num_tokens = await house.engine.embed(texts)
        assert num_tokens == sum(len(language().encode(text)) for text in texts)
        assert np.allclose(np.linalg.norm(together, axis=1), 1.0)
        assert np.array_equal(together[0], together[3])
        one_by_one = np.concatenate([(await house.engine.embed([text]))[0] for text in texts])
        assert np.array_equal(together, one_by_one)
        with pytest.raises(InvalidRequest):
            await house.engine.embed([()])
        await house.check_empty()

    serve(test, max_running=3)


def test_the_cache_must_be_the_runners() -> None:
    scheduler = SchedulerConfig(block_size=4, num_blocks=8)
    with pytest.raises(BadConfig):
        Engine(EngineConfig("tiny", 64, 2, scheduler), FakeRunner(num_blocks=16), language())
    assert not any(thread.name == "shoal-engine" for thread in threading.enumerate())
