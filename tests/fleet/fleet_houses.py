"""Engines for the fleet's tests: real schedulers and samplers over a runner that hashes what attention reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from shoal.core.chunk import Chunk
from shoal.core.errors import LinkClosed, ShoalError
from shoal.core.request import Message, Request, Sampling
from shoal.core.seams import Generate, closing
from shoal.core.service import ModelCard
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.fleet.provider import Kind, Load, Provider
from shoal.models.template import ChatTemplate
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer

SAMPLING = Sampling(temperature=1.0, max_tokens=20, ignore_eos=True, seed=4)
CHAT = Request("r", "tiny", (Message("user", "tell me"),), SAMPLING)


def make_engine() -> Engine:
    checkpoint = tiny_checkpoint("llama")
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    scheduler = SchedulerConfig(block_size=4, num_blocks=128)
    config = EngineConfig("tiny", context_length=512, num_layers=2, scheduler=scheduler)
    language = Language(tokenizer, ChatTemplate(checkpoint.chat_template, tokenizer))
    return Engine(config, FakeRunner(num_blocks=128, block_size=4), language)


def provider(name: str, generate: Generate, kind: Kind = "peer", **fields: object) -> Provider:
    return Provider(name, kind, generate, (ModelCard("tiny"),), **fields)  # type: ignore[arg-type]


@dataclass(slots=True)
class Dying:
    """A `Generate` that fails after so many chunks of each answer. `lives` of them; then it works."""

    generate: Generate
    after: int
    lives: int = 1
    error: ShoalError = field(default_factory=lambda: LinkClosed("the peer went away"))
    closed: int = 0

    async def __call__(self, request: Request) -> AsyncIterator[Chunk]:
        self.lives -= 1
        is_doomed, count = self.lives >= 0, 0
        try:
            async with closing(self.generate(request)) as chunks:
                async for chunk in chunks:
                    if is_doomed and count >= self.after:
                        raise self.error
                    count += 1
                    yield chunk
        finally:
            self.closed += 1


IDLE = Load(seats=4, prefill_tps=1000.0, stream_tps=100.0, total_tps=400.0)
BUSY = Load(running=4, waiting=3, seats=4, prefill_tps=1000.0, stream_tps=100.0, total_tps=400.0)
