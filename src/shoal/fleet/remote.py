"""A peer as a `Generate`: the request travels there, chunks come back, closing the iterator cancels over there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed
from shoal.core.request import Request
from shoal.fleet.wire import FIRST_SILENCE_S, METHOD, SILENCE_S, read_chunks, write_request
from shoal.mesh.calls import Caller, CallOptions, CallStream
from shoal.mesh.peer_id import PeerId

NO_LIMIT_S = 24 * 3600.0
"""For requests without a deadline: the ticks, not the clock, tell whether the other side lives."""
CONNECT_S = 4.0
"""A peer that takes longer to reach than this is not worth the wait: the next one is asked."""
SLOW_UPLINK = 100_000.0
"""Bytes a second at least: a long prompt takes its time to get there."""
TOKEN_PRIORITY = 10
"""Before transfers and gossip on the same link."""


@dataclass(frozen=True, slots=True)
class RemoteEngine:
    """`generate` raises what the peer's engine raises, `Unreachable`, or `LinkClosed` when the peer goes away."""

    peer: PeerId
    caller: Caller
    clock: Clock

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        now = self.clock.monotonic()
        timeout_s = NO_LIMIT_S if request.deadline is None else max(0.001, request.deadline - now)
        options = CallOptions(timeout_s, TOKEN_PRIORITY, connect_s=CONNECT_S)
        async with self.caller.stream(self.peer, METHOD, options) as call:
            written = write_request(request, now)
            await call.send(written)
            await call.end()
            async for chunk in self._chunks(call, FIRST_SILENCE_S + len(written) / SLOW_UPLINK):
                yield chunk
                if chunk.usage is not None:
                    return

    async def _chunks(self, call: CallStream, limit_s: float) -> AsyncIterator[Chunk]:
        messages = aiter(call)
        while True:
            try:
                message = await within(self.clock, limit_s, anext(messages))
            except StopAsyncIteration:
                return
            limit_s = SILENCE_S
            for chunk in read_chunks(message):
                yield chunk


async def within(clock: Clock, limit_s: float, waiting: object) -> memoryview:
    """The result of `waiting`, or LinkClosed after `limit_s` of silence on `clock`."""
    task = asyncio.ensure_future(waiting)  # type: ignore[call-overload]
    alarm = asyncio.ensure_future(clock.sleep(limit_s))
    try:
        await asyncio.wait((task, alarm), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            result: memoryview = task.result()
            return result
        raise LinkClosed(f"the peer said nothing for {limit_s:.0f} s though an answer was due")
    finally:
        for pending in (task, alarm):
            pending.cancel()
        await asyncio.gather(task, alarm, return_exceptions=True)
