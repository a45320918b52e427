"""Chunks as they come, gathered while the receiver is busy: one message for many, and a tick when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.seams import closing

MAX_GATHERED = 256
"""Chunks that wait; then the engine's iterator waits too."""


async def batched(chunks: AsyncIterator[Chunk], clock: Clock, tick_s: float) -> AsyncGenerator[list[Chunk], None]:
    """Lists of chunks; an empty one after `tick_s` without any. Raises what `chunks` raises; closing closes it."""
    state = _Gathered(chunks)
    pump = asyncio.create_task(state.pump())
    tick = asyncio.create_task(_ticks(clock, tick_s, state))
    try:
        while True:
            await state.news.wait()
            state.news.clear()
            batch, state.batch = state.batch, []
            state.room.set()
            if batch or state.is_tick:
                state.is_tick = False
                yield batch
            if state.is_over and not state.batch:
                return
    finally:
        for task in (tick, pump):
            task.cancel()
        results = await asyncio.gather(tick, pump, return_exceptions=True)
        if state.is_over and isinstance(results[1], Exception):
            raise results[1]


class _Gathered:
    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self.batch: list[Chunk] = []
        self.news = asyncio.Event()
        self.room = asyncio.Event()
        self.is_over = False
        self.is_tick = False
        self._chunks = chunks

    async def pump(self) -> None:
        try:
            async with closing(self._chunks) as chunks:
                async for chunk in chunks:
                    self.batch.append(chunk)
                    self.news.set()
                    while len(self.batch) >= MAX_GATHERED:
                        self.room.clear()
                        await self.room.wait()
        finally:
            self.is_over = True
            self.news.set()


async def _ticks(clock: Clock, tick_s: float, state: _Gathered) -> None:
    while True:
        await clock.sleep(tick_s)
        state.is_tick = True
        state.news.set()
