"""A split model as a `Generate`: an engine over a pipeline, made at the first request and again after a peer failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import ShoalError
from shoal.core.request import Request
from shoal.core.seams import closing
from shoal.engine.engine import Engine
from shoal.parallel.hop import Hop

_log = logging.getLogger(__name__)

IDLE_S = 600.0
"""A pipeline nobody used for so long is opened anew: hosts end a session after `host.IDLE_S`."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """An engine and the hops it stands on."""

    engine: Engine
    hops: tuple[Hop, ...]

    @property
    def failure(self) -> ShoalError | None:
        """Why a hop ended, if one did: its class says whose fault it was."""
        return next((hop.failure for hop in self.hops if hop.failure is not None), None)


@dataclass(slots=True)
class PrivateModel:
    """`generate` is the seam. `connect` opens a pipeline, and closes it when it is left."""

    connect: Callable[[], AbstractAsyncContextManager[Pipeline]]
    clock: Clock
    _open: Pipeline | None = None
    _running: int = 0
    _used_at: float = 0.0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """As an engine's. A peer that fails before the first chunk is replaced, once; later its failure is raised as
        what it is, and the next request looks for peers anew.
        """
        is_begun, is_again = False, False
        while True:
            pipeline = await self._ready()
            self._running += 1
            try:
                async with closing(pipeline.engine.generate(request)) as chunks:
                    async for chunk in chunks:
                        is_begun = True
                        yield chunk
                return
            except ShoalError as error:
                if pipeline.failure is None:
                    raise
                if is_begun or is_again:
                    raise pipeline.failure from error
                is_again = True
            finally:
                self._running -= 1
                self._used_at = self.clock.monotonic()

    async def close(self) -> None:
        """End what is open. Requests in progress fail."""
        async with self._lock:
            await self._leave()

    async def _ready(self) -> Pipeline:
        async with self._lock:
            if self._open is not None and (reason := self._is_over(self._open)):
                _log.info("the split model is connected anew: %s", reason)
                await self._leave()
            if self._open is None:
                self._open = await self._stack.enter_async_context(self.connect())
            return self._open

    def _is_over(self, pipeline: Pipeline) -> str:
        """Why this pipeline can no longer be used; nothing where it can."""
        if (reason := pipeline.engine.not_ready()) is not None:
            return str(pipeline.failure or reason)
        is_stale = not self._running and self.clock.monotonic() - self._used_at > IDLE_S
        return "its peers have waited so long that they may have ended it" if is_stale else ""

    async def _leave(self) -> None:
        self._open = None
        await self._stack.aclose()
        self._stack = AsyncExitStack()
