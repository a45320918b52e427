"""How fast an engine answers, learned from its own answers: moving averages of prefill and decode speed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from shoal.core.chunk import Chunk, Usage
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.core.service import EngineStats
from shoal.fleet.provider import Load

WEIGHT = 0.2
"""Of the newest answer: after five answers most of what is known is about now."""
LEAST_TOKENS = 16
"""Shorter prompts or answers say more about the clock than about the engine."""


@dataclass(slots=True)
class Speeds:
    """tokens/s; None before the first answer that says something."""

    prefill_tps: float | None = None
    stream_tps: float | None = None

    def learn(self, usage: Usage) -> None:
        """From one answer's own measurements."""
        queue, ttft, duration = usage.queue_s, usage.ttft_s, usage.duration_s
        if queue is None or ttft is None or duration is None:
            return
        computed = usage.prompt_tokens - usage.cached_tokens
        if computed >= LEAST_TOKENS and ttft > queue:
            self.prefill_tps = _mean(self.prefill_tps, computed / (ttft - queue))
        if usage.completion_tokens >= LEAST_TOKENS and duration > ttft:
            self.stream_tps = _mean(self.stream_tps, (usage.completion_tokens - 1) / (duration - ttft))

    def load(self, stats: EngineStats) -> Load:
        """With how busy the engine is; all seats together are taken for twice as fast as one, a modest guess."""
        total = None if self.stream_tps is None else 2.0 * self.stream_tps * max(1, stats.num_running)
        return Load(
            stats.num_running, stats.num_waiting, max(1, stats.max_running), self.prefill_tps, self.stream_tps, total
        )


def observed(generate: Generate, speeds: Speeds) -> Generate:
    """The same answers; `speeds` learns from each."""

    async def watching(request: Request) -> AsyncIterator[Chunk]:
        async with closing(generate(request)) as chunks:
            async for chunk in chunks:
                if chunk.usage is not None and request.n == 1:
                    speeds.learn(chunk.usage)
                yield chunk

    return watching


def _mean(old: float | None, new: float) -> float:
    return new if old is None else (1 - WEIGHT) * old + WEIGHT * new
