"""What the engine hands up for a receipt: the rows that chose the answer's tokens, however they were computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

import numpy as np
import pytest

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.receipt import Evidence
from shoal.core.request import Request, Resume, Sampling
from shoal.engine.drafts.lookup import LookupDrafter
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.models.template import ChatTemplate
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer

LAYERS = 2
PROMPT = tuple(range(5, 45))
LONG = Sampling(temperature=1.0, seed=7, max_tokens=70, ignore_eos=True)


def take(rows: np.ndarray, logits: np.ndarray, tokens: Sequence[int]) -> bytes:
    """Everything, so that a test sees what was seen."""
    return rows.astype(np.float32).tobytes() + logits.astype(np.float32).tobytes() + bytes(len(tokens))


def with_engine(test: Callable[[Engine], Coroutine[None, None, None]], is_drafting: bool = False) -> None:
    async def main() -> None:
        checkpoint = tiny_checkpoint("llama")
        tokenizer = load_tokenizer(checkpoint.tokenizer)
        language = Language(tokenizer, ChatTemplate(checkpoint.chat_template, tokenizer))
        scheduler = SchedulerConfig(block_size=4, num_blocks=128, max_batch_tokens=64)
        config = EngineConfig("tiny", context_length=1024, num_layers=LAYERS, scheduler=scheduler)
        drafter = LookupDrafter() if is_drafting else None
        runner = FakeRunner(num_blocks=128, block_size=4)
        engine = Engine(config, runner, language, VirtualClock(), drafter, take)
        try:
            await test(engine)
        finally:
            await engine.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def wanted(sampling: Sampling = LONG, **fields: object) -> Request:
    return replace(Request("r", "tiny", PROMPT, sampling, receipt=True), **fields)  # type: ignore[arg-type]


async def chunks_of(engine: Engine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def evidence_of(chunks: list[Chunk], index: int = 0) -> Evidence:
    (found,) = [chunk.evidence for chunk in chunks if chunk.index == index and chunk.evidence is not None]
    return found


def rows_of(fingerprints: tuple[bytes, ...], hidden: int = 8) -> np.ndarray:
    parts = []
    for data in fingerprints:
        count = len(data) // (4 * hidden + 5)
        parts.append(np.frombuffer(data[: 4 * hidden * count], np.float32).reshape(count, hidden))
    return np.concatenate(parts)


async def recomputed(engine: Engine, evidence: Evidence) -> np.ndarray:
    """The same rows from one teacher-forced pass over prompt and output."""
    session = await engine.session()
    rows = await session.hidden((*evidence.prompt, *evidence.tokens), LAYERS)
    await session.drop()
    return rows[len(evidence.prompt) - 1 + evidence.begins : -1]


@pytest.mark.parametrize("is_drafting", [False, True])
def test_the_rows_are_those_of_one_pass_over_the_whole_text(is_drafting: bool) -> None:
    async def test(engine: Engine) -> None:
        repeated = replace(LONG, logit_bias={7: 100.0, 9: 98.0})
        for sampling in (LONG, repeated):
            chunks = await chunks_of(engine, wanted(sampling))
            evidence = evidence_of(chunks)
            assert evidence.tokens == tuple(token for chunk in chunks for token in chunk.token_ids)
            assert (evidence.prompt, evidence.begins, evidence.seed) == (PROMPT, 0, 7)
            assert [len(data) // (4 * 8 + 5) for data in evidence.fingerprints] == [32, 32, 6]
            assert np.array_equal(rows_of(evidence.fingerprints), await recomputed(engine, evidence))
        assert (engine.stats().draft_accepted_total > 20) == is_drafting

    with_engine(test, is_drafting)


def test_alone_in_a_batch_and_from_a_warm_cache_the_evidence_is_the_same() -> None:
    async def test(engine: Engine) -> None:
        alone = evidence_of(await chunks_of(engine, wanted()))
        others = [replace(wanted(), prompt=(*PROMPT[:20], n), request_id=str(n)) for n in range(3)]
        plain = replace(wanted(), receipt=False, request_id="plain")
        answers = await asyncio.gather(*(chunks_of(engine, request) for request in [wanted(), *others, plain]))
        assert evidence_of(answers[0]) == alone
        assert not any(chunk.evidence for chunk in answers[-1])

    with_engine(test)


def test_each_choice_has_its_own_evidence() -> None:
    async def test(engine: Engine) -> None:
        chunks = await chunks_of(engine, wanted(n=3))
        found = [evidence_of(chunks, index) for index in range(3)]
        assert len({evidence.tokens for evidence in found}) == 3
        assert found[0] == evidence_of(await chunks_of(engine, wanted()))

    with_engine(test)


def test_an_answer_that_goes_on_is_recorded_from_where_it_goes_on() -> None:
    async def test(engine: Engine) -> None:
        whole = evidence_of(await chunks_of(engine, wanted()))
        rest = evidence_of(await chunks_of(engine, wanted(resume=Resume(tokens=whole.tokens[:10]))))
        assert (rest.tokens, rest.begins) == (whole.tokens, 10)
        assert np.array_equal(rows_of(rest.fingerprints), rows_of(whole.fingerprints)[10:])

    with_engine(test)


def test_no_token_no_fingerprint() -> None:
    async def test(engine: Engine) -> None:
        chunks = await chunks_of(engine, wanted(replace(LONG, max_tokens=0), echo=True))
        assert evidence_of(chunks) == Evidence(PROMPT, (), 0, 7, ())

    with_engine(test)


def test_a_reader_of_another_layer_and_an_answer_with_evidence_wait_for_each_other() -> None:
    async def test(engine: Engine) -> None:
        alone = evidence_of(await chunks_of(engine, wanted()))

        async def read(layer: int) -> np.ndarray:
            session = await engine.session()
            rows = await session.hidden(PROMPT, layer)
            await session.drop()
            return rows

        expected = [await read(layer) for layer in (0, 1, 2)]
        answers = [chunks_of(engine, replace(wanted(), request_id=str(n))) for n in range(3)]
        *found, first, second, third = await asyncio.gather(*answers, *(read(layer) for layer in (0, 1, 2)))
        assert [evidence_of(chunks) for chunks in found] == [alone] * 3
        for rows, wished in zip((first, second, third), expected, strict=True):
            assert np.array_equal(rows, wished)

    with_engine(test)
