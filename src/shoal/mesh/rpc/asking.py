"""The calls this side makes over one link.

Rules that stay true in this file:
- a call that ended in any way has no entry left, here or, a CANCEL later, on the other side;
- at most as many calls run at once as the other side bears; the others wait in order, boundedly.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shoal.core.errors import LinkClosed, Overloaded, PeerFault, ShoalError
from shoal.mesh.calls import Body, CallOptions
from shoal.mesh.carrier import Bytes
from shoal.mesh.rpc import wire
from shoal.mesh.rpc.bulk import Budget
from shoal.mesh.rpc.channel import UP, Channel, Way
from shoal.mesh.rpc.failures import parse_failure
from shoal.mesh.rpc.flow import Inbound, Outbound
from shoal.mesh.rpc.hello import Hello
from shoal.mesh.rpc.limits import INITIAL_CREDIT, Limits
from shoal.mesh.rpc.outgoing import Outgoing, buffers_of

Answer = Bytes | ShoalError


class Asking:
    """`theirs` says how much the other side bears; `budget` is what its large messages may hold here."""

    def __init__(self, out: Outgoing, budget: Budget, theirs: Hello, limits: Limits) -> None:
        self._out, self._budget, self._limits = out, budget, limits
        self._places, self._stream_places = Budget(theirs.calls), Budget(theirs.streams)
        self._unary: dict[int, asyncio.Future[Answer]] = {}
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._closed: LinkClosed | None = None

    def __len__(self) -> int:
        """Calls that have not ended."""
        return len(self._unary) + len(self._channels)

    async def ask(self, method: str, body: Body, options: CallOptions, timeout_s: float) -> memoryview:
        """One unary call. Raises the error the other side answered with."""
        size, parts = buffers_of(body)
        head = wire.ask_head(method, timeout_s, options.priority, options.idempotency_key or b"")
        await self._enter(self._places)
        try:
            answer = await self._answer(head, size, parts, options.priority)
        finally:
            self._places.give(1)
        if isinstance(answer, ShoalError):
            raise answer
        return memoryview(answer)

    @asynccontextmanager
    async def stream(self, method: str, options: CallOptions, timeout_s: float) -> AsyncIterator[Channel]:
        """One stream call; cancelled on leaving unless it has ended."""
        window = self._limits.window_bytes
        head = wire.ask_head(method, timeout_s, options.priority, options.idempotency_key or b"")
        await self._enter(self._stream_places)
        call = self._next()
        way = Way(call, self._out, options.priority, self._abandon)
        channel = Channel(way, UP, Inbound(window, window), Outbound(INITIAL_CREDIT), self._budget)
        self._channels[call] = channel
        try:
            self._out.post(wire.OPEN, call, head + wire.COUNT.pack(window), options.priority)
            yield channel
        finally:
            self._abandon(call)
            channel.drop()
            self._stream_places.give(1)

    def close(self, error: LinkClosed) -> None:
        """The link is gone: every call that has not ended fails with `error`, and so does every later one."""
        self._closed = error
        for future in self._unary.values():
            if not future.done():
                future.set_result(error)
        for channel in self._channels.values():
            channel.fail(error)
        self._channels.clear()

    # ---- frames ---------------------------------------------------------------------------------------

    def on_reply(self, call: int, payload: Bytes, held: int) -> None:
        """A unary answer, or the end of a stream call: how many messages there were."""
        self._budget.give(held)
        if (future := self._unary.get(call)) is not None:
            if not future.done():
                future.set_result(payload)
        elif (channel := self._known(call)) is not None:
            channel.finish(wire.parse_count(payload))
            self._settle(call, channel)

    def on_error(self, call: int, payload: Bytes, held: int) -> None:
        error = parse_failure(payload)
        if (future := self._unary.get(call)) is not None:
            if not future.done():
                future.set_result(error)
        elif (channel := self._known(call)) is not None:
            del self._channels[call]
            channel.fail(error)

    def on_data(self, call: int, payload: Bytes, held: int) -> None:
        channel = self._known(call)
        if channel is None:
            self._budget.give(held)
            return
        channel.on_data(payload, held)
        self._settle(call, channel)

    def on_end(self, call: int, payload: Bytes, held: int) -> None:
        count = wire.parse_count(payload)
        if (channel := self._known(call)) is not None:
            channel.on_end(count)

    def on_credit(self, call: int, payload: Bytes, held: int) -> None:
        credit = wire.parse_count(payload)
        if (channel := self._known(call)) is not None:
            channel.on_credit(credit)

    def _known(self, call: int) -> Channel | None:
        """The stream call of that number; None for one that has ended. PeerFault for one never made."""
        channel = self._channels.get(call)
        if channel is None and not 0 < call <= self._last:
            raise PeerFault(f"expected a frame of one of our {self._last} calls, found one of call {call}")
        return channel

    def _settle(self, call: int, channel: Channel) -> None:
        if channel.is_finished and channel.is_complete:
            del self._channels[call]

    # ---- one call -------------------------------------------------------------------------------------

    async def _answer(self, head: bytes, size: int, parts: Sequence[Bytes], priority: int) -> Answer:
        call = self._next()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._unary[call] = future
        try:
            await self._out.send(wire.CALL, call, head, size, parts, priority)
            return await future
        finally:
            del self._unary[call]
            if not future.done() or future.cancelled():
                self._out.post(wire.CANCEL, call)

    async def _enter(self, places: Budget) -> None:
        if places.num_waiting >= self._limits.waiting_calls:
            raise Overloaded(f"{places.num_waiting} calls wait for this peer already; ask less of it, or another")
        await places.take(1)
        if self._closed is not None:
            places.give(1)
            raise self._closed

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _abandon(self, call: int) -> None:
        """Forget a stream call; where it has not ended, cancel it."""
        channel = self._channels.pop(call, None)
        if channel is not None and not channel.is_finished:
            self._out.post(wire.CANCEL, call)
