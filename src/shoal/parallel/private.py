"""A split model as a `Generate`: an engine over a pipeline, made at the first request and again after a peer failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from shoal.core.chunk import Chunk
from shoal.core.errors import ShoalError
from shoal.core.request import Request
from shoal.core.seams import closing
from shoal.engine.engine import Engine
from shoal.parallel.hop import Hop

_log = logging.getLogger(__name__)


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
    _open: Pipeline | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """As an engine's; a peer's failure is raised as what it is, and the next request looks for peers anew."""
        pipeline = await self._ready()
        try:
            async with closing(pipeline.engine.generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ShoalError as error:
            if pipeline.failure is None:
                raise
            raise pipeline.failure from error

    async def close(self) -> None:
        """End what is open. Requests in progress fail."""
        async with self._lock:
            await self._leave()

    async def _ready(self) -> Pipeline:
        async with self._lock:
            if self._open is not None and (reason := self._open.engine.not_ready()) is not None:
                _log.warning("the split model is connected anew: %s", self._open.failure or reason)
                await self._leave()
            if self._open is None:
                self._open = await self._stack.enter_async_context(self.connect())
            return self._open

    async def _leave(self) -> None:
        self._open = None
        await self._stack.aclose()
        self._stack = AsyncExitStack()
