"""One side of a stream call: `CallStream` over frames. `flow` decides; this waits and wakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from shoal.core.errors import LocalError, ShoalError
from shoal.mesh.calls import Body
from shoal.mesh.carrier import Bytes
from shoal.mesh.rpc import wire
from shoal.mesh.rpc.bulk import Budget
from shoal.mesh.rpc.flow import Inbound, Outbound
from shoal.mesh.rpc.limits import BULK_BYTES
from shoal.mesh.rpc.outgoing import Outgoing, buffers_of


@dataclass(frozen=True, slots=True)
class Sends:
    """The kinds one side of a call sends; the other side sends the other three."""

    data: int
    end: int
    credit: int


UP = Sends(wire.UP_DATA, wire.UP_END, wire.UP_CREDIT)
DOWN = Sends(wire.DOWN_DATA, wire.DOWN_END, wire.DOWN_CREDIT)


@dataclass(frozen=True, slots=True)
class Way:
    """How one call's frames leave. `abandon` ends the call when this side broke off inside a large message."""

    call: int
    out: Outgoing
    priority: int
    abandon: Callable[[int], None]


class Channel:
    """`way` carries what this side `sends`; `budget` is given back what large messages held."""

    def __init__(self, way: Way, sends: Sends, inbound: Inbound, outbound: Outbound, budget: Budget) -> None:
        self._way, self._sends, self._in, self._out, self._budget = way, sends, inbound, outbound, budget
        self._held = 0
        self._read_error: ShoalError | None = None
        self._send_error: ShoalError | None = None
        self.is_finished = self.is_broken = False
        self._is_acknowledged = sends is DOWN
        self._lock = asyncio.Lock()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # ---- what the application calls -------------------------------------------------------------------

    async def send(self, message: Body) -> None:
        size, parts = buffers_of(message)
        async with self._lock:
            await self._may_send(is_bulk=size > BULK_BYTES)
            head = wire.COUNT.pack(self._out.message(size))
            try:
                await self._way.out.send(self._sends.data, self._way.call, head, size, parts, self._way.priority)
            except BaseException:  # its number is used and will not come: the call cannot go on
                self.is_broken = True
                self.fail(LocalError("a message of this stream call was broken off; the call cannot go on"))
                self._way.abandon(self._way.call)
                raise

    async def end(self) -> None:
        async with self._lock:
            if self._send_error is None and not self._out.is_ended:
                self._out.is_ended = True
                self._post(self._sends.end, self._out.sent)

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> memoryview:
        while (message := self._in.take()) is None:
            if self._in.is_over:
                raise StopAsyncIteration
            if self._read_error is not None:
                raise self._read_error
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self._used(message)
        return message

    # ---- what the link calls --------------------------------------------------------------------------

    def on_data(self, payload: Bytes, held: int) -> None:
        """`held` bytes of the link's budget are this call's until the message is taken."""
        self._held += held
        self._in.message(*wire.parse_data(payload))
        _wake(self._reader)

    def on_end(self, count: int) -> None:
        self._in.end(count)
        _wake(self._reader)

    def on_credit(self, credit: int) -> None:
        self._out.grant(credit)
        self._is_acknowledged = True
        _wake(self._writer)

    def fail(self, error: ShoalError) -> None:
        """No more comes or goes. What has arrived can still be read; then, and when sending, `error` is raised."""
        self._read_error = self._read_error or error
        self._send_error = self._send_error or error
        _wake(self._reader)
        _wake(self._writer)

    def finish(self, count: int) -> None:
        """The answering side has ended the call well, after `count` messages; large ones may still be on their way."""
        if not self._in.is_ended:
            self._in.end(count)
        self.is_finished = True
        self._send_error = LocalError("expected no message after the end of a stream call")
        _wake(self._reader)
        _wake(self._writer)

    def drop(self) -> None:
        """Nobody reads any more."""
        self._budget.give(self._held)
        self._held = 0

    def acknowledge(self) -> None:
        """Grant what has become free of the window."""
        if self._send_error is None and (granted := self._in.grant()):
            self._post(self._sends.credit, granted)

    @property
    def is_complete(self) -> bool:
        """Whether the other side's messages have all arrived."""
        return self._in.is_complete

    @property
    def has_ended(self) -> bool:
        """Whether this side has said its last message."""
        return self._out.is_ended

    @property
    def num_sent(self) -> int:
        return self._out.sent

    async def _may_send(self, is_bulk: bool) -> None:
        while self._send_error is None and not self._out.is_ended:
            if self._out.can_send and (self._is_acknowledged or not is_bulk):
                return
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        raise self._send_error or LocalError("expected no message after the end of this side of a stream call")

    def _used(self, message: memoryview) -> None:
        freed = min(self._held, wire.COUNT.size + message.nbytes) if message.nbytes > BULK_BYTES else 0
        if freed:
            self._held -= freed
            self._budget.give(freed)
        self.acknowledge()

    def _post(self, kind: int, count: int) -> None:
        self._way.out.post(kind, self._way.call, wire.COUNT.pack(count), self._way.priority)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
