"""Asking a peer's stage: opened in the event loop, used from the engine's thread, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed, LocalError, PeerFault, ShoalError
from shoal.core.waiting import within
from shoal.mesh.calls import Body, Caller, CallOptions, CallStream
from shoal.mesh.peer_id import PeerId
from shoal.parallel.frames import (
    METHOD,
    Open,
    Rows,
    StageInfo,
    read_info,
    read_stream,
    write_copy,
    write_open,
    write_step,
)

T = TypeVar("T")

OPEN_S = 30.0
STEP_S = 60.0
"""A prefill chunk of 512 rows takes a slow machine a few seconds."""
NO_LIMIT_S = 24 * 3600.0
PRIORITY = 10
"""A token waits for this message."""


@dataclass(slots=True)
class Hop:
    """A session at a peer's stage. After a failure every use raises the same error, whose class says who is to blame.

    sent_bytes, received_bytes  of messages, since it was opened.
    """

    peer: PeerId
    info: StageInfo
    call: CallStream
    messages: AsyncIterator[memoryview]
    clock: Clock
    loop: asyncio.AbstractEventLoop
    failure: ShoalError | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    _pending: Future[Any] | None = None

    def run(self, seqs: Sequence[Rows], stream: np.ndarray) -> np.ndarray:
        """The stream behind the stage's layers, float32 (rows, hidden). Not from the event loop's thread."""
        return self._wait(self._step(seqs, stream))

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._wait(self._send(write_copy(pairs)))

    def abort(self, error: ShoalError) -> None:
        """From the event loop: whoever waits on the peer, and whoever asks from now on, gets `error`."""
        self.failure = self.failure or error
        if self._pending is not None:
            self._pending.cancel()

    def _wait(self, work: Coroutine[None, None, T]) -> T:
        if self.failure is not None:
            work.close()
            raise self.failure
        self._pending = pending = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            found: T = pending.result()
            return found
        except CancelledError:
            raise self.failure or LinkClosed(f"asking peer {self.peer.short} was cancelled") from None
        except ShoalError as error:
            self.failure = error
            raise

    async def _step(self, seqs: Sequence[Rows], stream: np.ndarray) -> np.ndarray:
        await self._send(write_step(seqs, stream))
        try:
            answer = await within(self.clock, STEP_S, anext(self.messages))
        except StopAsyncIteration:
            raise LinkClosed(f"peer {self.peer.short} ended the session of its layers") from None
        self.received_bytes += len(answer)
        return read_stream(answer, *stream.shape)

    async def _send(self, message: Body) -> None:
        parts = message if isinstance(message, list) else [message]
        self.sent_bytes += sum(len(part) for part in parts)
        await within(self.clock, STEP_S, self.call.send(message))


@asynccontextmanager
async def open_hop(caller: Caller, peer: PeerId, wish: Open, clock: Clock) -> AsyncIterator[Hop]:
    """A session for as long as this is open. Raises what the peer says against it, `Unreachable` or `LinkClosed`."""
    options = CallOptions(NO_LIMIT_S, PRIORITY, connect_s=OPEN_S)
    async with caller.stream(peer, METHOD, options) as call:
        await call.send(write_open(wish))
        messages = aiter(call)
        try:
            info = read_info(await within(clock, OPEN_S, anext(messages)))
        except StopAsyncIteration:
            raise LinkClosed(f"peer {peer.short} ended the call before its session began") from None
        if (info.digest, info.first, info.last) != (wish.digest, wish.first, wish.last):
            raise PeerFault(f"expected layers {wish.first} to {wish.last}, peer {peer.short} opened others")
        hop = Hop(peer, info, call, messages, clock, asyncio.get_running_loop())
        try:
            yield hop
        finally:
            hop.abort(LocalError("the session of these layers was closed"))
