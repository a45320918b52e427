"""A `Generate` around another that fills in what its answers cost. The only place where joules meet requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock, SystemClock
from shoal.core.request import Message, Request
from shoal.core.seams import Generate, closing
from shoal.core.usage import Measured, Usage
from shoal.meter.impact import Site, impact
from shoal.meter.sharing import Sharing
from shoal.meter.source import EnergySource

CHARS_PER_TOKEN = 4.0


@dataclass(slots=True)
class Meter:
    """The energy of one machine and the requests it works on."""

    source: EnergySource
    site: Site = field(default_factory=Site)
    clock: Clock = field(default_factory=SystemClock)
    on_answer: Callable[[Usage], None] = lambda usage: None
    _sharing: Sharing = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._sharing = Sharing(self.source.joules())
        self._at = self.clock.monotonic()

    def begin(self, request: Request, key: str) -> None:
        self._sharing.begin(self.source.joules(), self._since(), key, _prompt_tokens(request))

    def tokens(self, key: str, count: int) -> None:
        self._sharing.tokens(key, count)

    def tick(self) -> None:
        """Give out what was used so far; called while requests run, so that long ones do not pay for short ones."""
        self._sharing.advance(self.source.joules(), self._since())

    def end(self, key: str) -> float:
        return self._sharing.end(self.source.joules(), self._since(), key)

    def usage(self, usage: Usage, joules: float) -> Usage:
        """With the readings filled in, and learned from."""
        self._learn(usage)
        spread = None if self.source.error is None else joules * self.source.error
        energy = Measured(joules, self.source.name, spread)
        cost = impact(energy, self.site)
        filled = replace(usage, energy_j=energy, water_l=cost.water_l, carbon_g=cost.carbon_g, cost_usd=cost.cost_usd)
        self.on_answer(filled)
        return filled

    @property
    def idle_joules(self) -> float:
        """Used while nobody was served."""
        return self._sharing.idle_joules

    def _learn(self, usage: Usage) -> None:
        if usage.ttft_s is None or usage.duration_s is None:
            return
        prompt = usage.prompt_tokens - usage.cached_tokens
        waited = usage.ttft_s - (usage.queue_s or 0.0)
        self._sharing.learn(prompt, waited, usage.completion_tokens, usage.duration_s - usage.ttft_s)

    def _since(self) -> float:
        now = self.clock.monotonic()
        since, self._at = now - self._at, now
        return since


def metered(generate: Generate, meter: Meter) -> Generate:
    """`generate`, whose last chunk's usage says what the answer cost on this machine."""

    async def answer(request: Request) -> AsyncIterator[Chunk]:
        key, joules = f"{request.request_id}/{id(request)}", None
        meter.begin(request, key)
        ticking = asyncio.get_running_loop().create_task(_tick(meter))
        try:
            async with closing(generate(request)) as chunks:
                async for chunk in chunks:
                    meter.tokens(key, len(chunk.token_ids))
                    if chunk.usage is None:
                        yield chunk
                        continue
                    joules = meter.end(key)
                    yield replace(chunk, usage=meter.usage(chunk.usage, joules))
        finally:
            ticking.cancel()
            if joules is None:
                meter.end(key)

    return answer


async def _tick(meter: Meter) -> None:
    while True:
        await meter.clock.sleep(0.25)
        meter.tick()


def _prompt_tokens(request: Request) -> float:
    """Exact for token ids, else from the length of the text."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return len(prompt) / CHARS_PER_TOKEN
    return sum(len(part.content) / CHARS_PER_TOKEN if isinstance(part, Message) else 1.0 for part in prompt)
