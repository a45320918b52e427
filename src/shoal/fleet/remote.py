"""A peer as a `Generate`: the request travels there, chunks come back, closing the iterator cancels over there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed
from shoal.core.request import Request
from shoal.core.waiting import Pulse, within
from shoal.fleet.wire import FIRST_SILENCE_S, METHOD, MISSED_TICKS, SILENCE_S, TICK_S, read_chunks, write_request
from shoal.mesh.calls import Caller, CallOptions, CallStream
from shoal.mesh.peer_id import PeerId

NO_LIMIT_S = 24 * 3600.0
"""For requests without a deadline: the ticks, not the clock, tell whether the other side lives."""
CONNECT_S = 4.0
"""A peer that takes longer to reach than this is not worth the wait: the next one is asked."""
SLOW_UPLINK = 100_000.0
"""Bytes a second at least: a long prompt takes its time to get there."""
PATIENCE = 2
"""Times as much silence is borne of a peer whose link would have told of its end."""
STALL_S = 900.0
"""Without any piece of an answer for so long a peer that only says that it lives is given up."""
TOKEN_PRIORITY = 10
"""Before transfers and gossip on the same link."""


@dataclass(frozen=True, slots=True)
class RemoteEngine:
    """`generate` raises what the peer's engine raises, `Unreachable`, or `LinkClosed` when the peer goes away.

    tells_its_end  its link ends at once when its process does: silence then means that it is busy, and lasts longer.
    """

    peer: PeerId
    caller: Caller
    clock: Clock
    tells_its_end: bool = False

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        now = self.clock.monotonic()
        written = write_request(request, now)
        timeout_s = NO_LIMIT_S if request.deadline is None else max(0.001, request.deadline - now)
        options = CallOptions(timeout_s, TOKEN_PRIORITY, connect_s=CONNECT_S)
        async with self.caller.stream(self.peer, METHOD, options) as call:
            await call.send(written)
            await call.end()
            first_s = FIRST_SILENCE_S * (PATIENCE if self.tells_its_end else 1)
            async for chunk in self._chunks(call, first_s + len(written) / SLOW_UPLINK):
                yield chunk
                if chunk.usage is not None:
                    return

    async def _chunks(self, call: CallStream, limit_s: float) -> AsyncIterator[Chunk]:
        missed = MISSED_TICKS * (PATIENCE if self.tells_its_end else 1)
        messages, pulse = aiter(call), Pulse(TICK_S, missed, SILENCE_S)
        heard = answered = self.clock.monotonic()
        while True:
            try:
                message = await within(self.clock, limit_s, anext(messages))
            except StopAsyncIteration:
                return
            before, heard = heard, self.clock.monotonic()
            pulse.heard(heard - before)
            limit_s = pulse.limit_s
            if len(message):
                answered = heard
            elif heard - answered > STALL_S:
                raise LinkClosed(f"the peer has been about to answer for {STALL_S:.0f} s")
            for chunk in read_chunks(message):
                yield chunk
