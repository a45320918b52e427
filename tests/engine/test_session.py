"""Sessions against the contract of the seam, and against an engine that computes every context anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import numpy as np
import pytest

from shoal.core.clock import VirtualClock
from shoal.core.errors import ContextTooLong, InvalidRequest, LocalError, Unavailable
from shoal.core.request import Request, Sampling
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer


@cache
def language() -> Language:
    return Language(load_tokenizer(tiny_checkpoint("llama").tokenizer), None)


def serve(test: Callable[[Engine, FakeRunner], Coroutine[Any, Any, None]], num_blocks: int = 64) -> None:
    async def main() -> None:
        runner = FakeRunner(num_blocks=num_blocks, block_size=4)
        scheduler = SchedulerConfig(block_size=4, num_blocks=num_blocks, prefill_chunk=7, max_outputs=64)
        engine = Engine(EngineConfig("tiny", 128, 2, scheduler), runner, language(), VirtualClock())
        try:
            await test(engine, runner)
            worker = engine._worker
            await worker.call(worker.scheduler.check_integrity)
        finally:
            runner.gate.set()
            await engine.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


async def fresh(engine: Engine, tokens: list[int]) -> np.ndarray:
    session = await engine.session()
    row = await session.append(tokens)
    await session.drop()
    return row


def test_appending_piecewise_equals_appending_at_once() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        session = await engine.session()
        for piece in ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12], [13]):
            row = await session.append(piece)
        assert session.num_tokens == 13
        assert row.dtype == np.float32
        assert np.exp(row).sum() == pytest.approx(1.0, abs=1e-5)
        assert np.array_equal(row, await fresh(engine, list(range(1, 14))))
        assert np.array_equal(row, await session.append([]))
        await session.drop()
        assert engine.stats().blocks_used == 0

    serve(test)


def test_forks_go_their_own_ways_and_share_what_they_have() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        root = await engine.session()
        await root.append(list(range(30)))
        used = engine.stats().blocks_used
        forks = [await root.fork() for _ in range(5)]
        assert engine.stats().blocks_used == used
        rows = await asyncio.gather(*(fork.append([100 + index]) for index, fork in enumerate(forks)))
        for index, row in enumerate(rows):
            assert np.array_equal(row, await fresh(engine, [*range(30), 100 + index]))
        assert np.array_equal(await root.append([7]), await fresh(engine, [*range(30), 7]))
        for session in [root, *forks]:
            await session.drop()
        assert engine.stats().blocks_used == 0

    serve(test)


def test_scores_are_the_log_probabilities_of_the_tokens_and_leave_the_context() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        session = await engine.session()
        row = await session.append([1, 2, 3])
        tokens = list(range(20, 50))
        scores = await session.score(tokens)
        expected = []
        for index, token in enumerate(tokens):
            context = await fresh(engine, [1, 2, 3, *tokens[:index]])
            expected.append(float(context[token]))
        assert scores == pytest.approx(expected, abs=1e-5)
        assert await session.score([]) == ()
        assert await session.score([9]) == (float(row[9]),)
        assert session.num_tokens == 3
        assert np.array_equal(await session.append([]), row)

    serve(test)


def test_hidden_states_depend_on_layer_and_context_and_leave_it() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        empty, session = await engine.session(), await engine.session()
        await session.append([1, 2, 3, 4, 5])
        whole = await empty.hidden([1, 2, 3, 4, 5, 6, 7], 1)
        assert whole.shape == (7, runner.hidden_size)
        assert np.array_equal(await session.hidden([6, 7], 1), whole[5:])
        assert not np.array_equal(await session.hidden([6, 7], 2), whole[5:])
        layers = await asyncio.gather(*(session_hidden(engine, layer) for layer in (0, 1, 2, 1)))
        assert np.array_equal(layers[1], layers[3])
        assert len({layer.tobytes() for layer in layers}) == 3
        assert (empty.num_tokens, session.num_tokens) == (0, 5)

    async def session_hidden(engine: Engine, layer: int) -> np.ndarray:
        session = await engine.session()
        rows = await session.hidden(list(range(25)), layer)
        await session.drop()
        return rows

    serve(test)


def test_sessions_whose_blocks_were_taken_are_recomputed() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        prompts = [[seed, *range(20)] for seed in range(6)]  # 36 blocks of 16
        sessions = [await engine.session() for _ in prompts]
        rows = [await session.append(prompt) for session, prompt in zip(sessions, prompts, strict=True)]
        answer = [chunk async for chunk in engine.generate(Request("r", "tiny", (5,) * 40, Sampling(max_tokens=8)))]
        assert answer[-1].usage is not None
        for session, prompt, row in zip(sessions, prompts, rows, strict=True):
            assert np.array_equal(await session.append([50]), await fresh(engine, [*prompt, 50]))
            assert not np.array_equal(await session.append([51]), row)

    serve(test, num_blocks=16)


def test_a_session_and_requests_run_in_the_same_steps() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        session = await engine.session()
        runner.gate.clear()
        asked = asyncio.create_task(answer(engine))
        await asyncio.to_thread(runner.is_inside.wait)
        appended = asyncio.create_task(session.append([4] * 9))
        while not engine._worker._inbox:
            await asyncio.sleep(0)
        runner.gate.set()
        await asyncio.gather(asked, appended)
        assert [batch.num_seqs for batch in runner.batches[:3]] == [1, 2, 2]  # nine tokens in chunks of seven and two

    async def answer(engine: Engine) -> int:
        sampling = Sampling(max_tokens=9, ignore_eos=True)
        return len([chunk async for chunk in engine.generate(Request("r", "tiny", (9, 9), sampling))])

    serve(test)


def test_a_cancelled_append_leaves_the_context_as_it_was() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        session = await engine.session()
        await session.append(list(range(10)))
        runner.gate.clear()
        runner.is_inside.clear()
        task = asyncio.create_task(session.append(list(range(50, 80))))
        await asyncio.to_thread(runner.is_inside.wait)
        task.cancel()
        runner.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.num_tokens == 10
        assert np.array_equal(await session.append([3]), await fresh(engine, [*range(10), 3]))

    serve(test)


def test_an_append_cancelled_once_its_rows_are_there() -> None:
    """The worker had finished, the caller had not looked: the tokens stayed in the context, or a first append's blocks
    in the pool."""

    async def test(engine: Engine, runner: FakeRunner) -> None:
        worker = engine._worker
        for before in ([], list(range(10))):
            session = await engine.session()
            if before:
                await session.append(before)
            runner.gate.clear()
            runner.is_inside.clear()
            task = asyncio.create_task(session.append(list(range(50, 80))))
            await asyncio.to_thread(runner.is_inside.wait)
            runner.gate.set()
            steps = engine.stats().steps_total
            while engine.stats().steps_total == steps or worker.scheduler.num_waiting or len(worker._desk.owners):
                pass  # the loop is kept from looking: what arrives in the mailbox is not seen
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert session.num_tokens == len(before)
            assert np.array_equal(await session.append([3]), await fresh(engine, [*before, 3]))
            await session.drop()
        assert engine.stats().blocks_used == 0

    serve(test)


def test_what_a_session_refuses() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        session = await engine.session()
        for call in (session.append([]), session.score([1]), session.hidden([], 0), session.hidden([1], 3)):
            with pytest.raises(InvalidRequest):
                await call
        for call in (session.append([259]), session.score([-1]), session.hidden([10**6], 0)):
            with pytest.raises(InvalidRequest, match="outside the vocabulary"):
                await call
        with pytest.raises(ContextTooLong):
            await session.append([1] * 129)
        await session.append([1] * 120)
        with pytest.raises(ContextTooLong):
            await session.append([1] * 9)
        with pytest.raises(ContextTooLong):
            await session.score([1] * 10)
        assert session.num_tokens == 120
        await session.append([1] * 8)
        await session.drop()
        await session.drop()
        for late in (session.append([1]), session.fork(), session.score([1]), session.hidden([1], 0)):
            with pytest.raises(LocalError, match="dropped"):
                await late

    serve(test)


def test_a_session_of_an_adapter_holds_it() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        await engine.load_adapter("one", "/adapters/one")
        plain, tuned = await engine.session(), await engine.session("one")
        assert not np.array_equal(await plain.append([1, 2]), await tuned.append([1, 2]))
        twin = await tuned.fork()
        await tuned.drop()
        dropping = asyncio.create_task(engine.unload_adapter("one"))
        await twin.append([3])
        assert runner.adapters == {0: "/adapters/one"}
        await twin.drop()
        await dropping
        assert runner.adapters == {}

    serve(test)


def test_a_failing_runner_fails_the_call_and_drop_still_returns() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        session = await engine.session()
        runner.error = RuntimeError("out of luck")
        with pytest.raises(LocalError, match="out of luck"):
            await session.append([1])
        with pytest.raises(Unavailable):
            await session.append([1])
        await session.drop()

    async def main() -> None:
        runner = FakeRunner()
        scheduler = SchedulerConfig(block_size=4, num_blocks=32)
        engine = Engine(EngineConfig("tiny", 128, 2, scheduler), runner, language(), VirtualClock())
        await test(engine, runner)
        await engine.stop()

    asyncio.run(main())


def test_reading_gives_the_rows_that_hidden_and_append_give_and_extends_the_context() -> None:
    async def test(engine: Engine, runner: FakeRunner) -> None:
        session = await engine.session(priority=3)
        await session.append([1, 2, 3, 4, 5])
        wanted = await session.hidden(list(range(6, 20)), 1)
        rows = await session.read(list(range(6, 20)), lambda out: np.concatenate([out.taps, out.logits], axis=1), 1)
        assert session.num_tokens == 19
        assert np.array_equal(rows[:, : wanted.shape[1]], wanted)
        with pytest.raises(InvalidRequest, match="append at least one token"):
            await session.append([])
        assert np.array_equal(await session.append([20]), await fresh(engine, list(range(1, 21))))
        with pytest.raises(InvalidRequest, match="expected a layer"):
            await session.read([1], lambda out: out.taps, 9)
        with pytest.raises(InvalidRequest, match="at least one token"):
            await session.read([], lambda out: out.taps, 1)
        await session.drop()
        assert engine.stats().blocks_used == 0

    serve(test)
