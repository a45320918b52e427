"""Drafters that know the answer, and lie now and then; engines over a fake or a real runner that use them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence as List
from functools import cache

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.request import Request
from shoal.core.service import EngineStats
from shoal.engine.drafts.costs import StepTimes
from shoal.engine.drafts.draft import NOTHING, Draft, Drafter, Want
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.engine.runner import Runner
from shoal.engine.sequence import Sequence
from shoal.models.template import ChatTemplate
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer

TIMES = StepTimes()


@cache
def language() -> Language:
    checkpoint = tiny_checkpoint("llama")
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    return Language(tokenizer, ChatTemplate(checkpoint.chat_template, tokenizer))


class KnowingDrafter:
    """Drafts what was answered before to the same prompt, with `lies` of its tokens replaced at random.

    `seen` counts calls of `forget` by sequence: each must come exactly once.
    """

    name = "knowing"

    def __init__(self, truths: List[List[int]], lies: float, seed: int = 0, vocab_size: int = 259) -> None:
        self._truths = [list(truth) for truth in truths]
        self._lies, self._vocab_size = lies, vocab_size
        self._random = random.Random(seed)
        self.forgotten: dict[Sequence, int] = {}
        self.is_closed = False

    def propose(self, wants: List[Want], times: StepTimes) -> List[Draft]:
        return [self._draft(want) for want in wants]

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        assert num_accepted >= 0

    def forget(self, seq: Sequence, output: List[int]) -> None:
        self.forgotten[seq] = self.forgotten.get(seq, 0) + 1

    def close(self) -> None:
        self.is_closed = True

    def _draft(self, want: Want) -> Draft:
        known = list(want.seq.tokens)
        assert want.seq.num_drafted == 0
        matching = [truth for truth in self._truths if truth[: len(known)] == known and len(truth) > len(known)]
        if not matching:
            return NOTHING
        length = self._random.randint(1, 9)
        future = self._random.choice(matching)[len(known) : len(known) + min(length, want.most)]
        tokens = [self._lie() if self._random.random() < self._lies else token for token in future]
        return Draft(tuple(tokens), (1.0,) * len(tokens), "knowing", 64) if tokens else NOTHING

    def _lie(self) -> int:
        return self._random.randrange(self._vocab_size)


def ask_all(
    requests: List[Request],
    drafter: Drafter | None,
    runner: Runner | None = None,
    *,
    together: bool = False,
    **limits: int,
) -> tuple[list[list[Chunk]], EngineStats]:
    """Every request's chunks, asked one after the other or together, and the statistics; then the cache is empty."""
    runner = runner or FakeRunner(num_blocks=limits.pop("num_blocks", 128), block_size=4)

    async def main() -> tuple[list[list[Chunk]], EngineStats]:
        scheduler = SchedulerConfig(block_size=runner.block_size, num_blocks=runner.num_blocks, **limits)
        config = EngineConfig("tiny", context_length=1024, num_layers=2, scheduler=scheduler)
        engine = Engine(config, runner, language(), VirtualClock(), drafter)
        try:
            if together:
                answers = await asyncio.gather(*(collect(engine, request) for request in requests))
            else:
                answers = [await collect(engine, request) for request in requests]
            await engine._worker.call(engine._worker.scheduler.check_integrity)
            assert engine.stats().blocks_used == 0
            return answers, engine.stats()
        finally:
            await engine.stop()

    return asyncio.run(asyncio.wait_for(main(), 120))


async def collect(engine: Engine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def tokens_of(chunks: List[Chunk], index: int = 0) -> list[int]:
    return [token for chunk in chunks if chunk.index == index for token in chunk.token_ids]
