"""The calls the other side of one link makes: each a task here, which ends with one answer or none if cancelled.

Rules that stay true in this file:
- every call gets exactly one REPLY or ERROR, or was cancelled by its caller, or lost its link;
- a call has an entry until its task has ended, however long that takes, and entries are bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from shoal.core.clock import Clock
from shoal.core.errors import InvalidRequest, LocalError, Overloaded, PeerFault, ShoalError, Unavailable
from shoal.mesh.calls import Body, Incoming, StreamHandler, UnaryHandler
from shoal.mesh.carrier import Bytes, LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc import wire
from shoal.mesh.rpc.bulk import Budget
from shoal.mesh.rpc.channel import DOWN, Channel, Way
from shoal.mesh.rpc.deadlines import Deadlines, TimeLimit
from shoal.mesh.rpc.failures import failure_bytes
from shoal.mesh.rpc.flow import Inbound, Outbound
from shoal.mesh.rpc.idempotency import KEPT_S
from shoal.mesh.rpc.limits import BULK_BYTES, INITIAL_CREDIT, REPLY_BYTES_PER_S, Limits
from shoal.mesh.rpc.once import Once
from shoal.mesh.rpc.outgoing import Outgoing, buffers_of
from shoal.mesh.rpc.share import Metered, Share, Shares

LOG = logging.getLogger(__name__)

EARLY = 1024
"""Cancellations remembered that came before their call, which travelled apart."""


@dataclass(slots=True)
class Methods:
    """What this node answers: `Answering`."""

    unaries: dict[str, UnaryHandler] = field(default_factory=dict)
    streams: dict[str, StreamHandler] = field(default_factory=dict)
    is_draining: bool = False

    def unary(self, method: str, handler: UnaryHandler) -> None:
        self._check(method)
        self.unaries[method] = handler

    def streaming(self, method: str, handler: StreamHandler) -> None:
        self._check(method)
        self.streams[method] = handler

    def _check(self, method: str) -> None:
        if method in self.unaries or method in self.streams:
            raise ValueError(f"method {method!r} has a handler already")


@dataclass(frozen=True, slots=True)
class Desk:
    """What serves all links of a node."""

    methods: Methods
    clock: Clock
    deadlines: Deadlines
    once: Once
    limits: Limits
    incoming: Budget
    replies: Budget
    shares: Shares
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Serving:
    """One link's incoming calls."""

    def __init__(self, peer: PeerId, info: Callable[[], LinkInfo], out: Outgoing, budget: Budget, desk: Desk) -> None:
        self._peer, self._info, self._out, self._budget, self._desk = peer, info, out, budget, desk
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._held: dict[int, int] = {}
        self._channels: dict[int, Channel] = {}
        self._early: OrderedDict[int, None] = OrderedDict()
        self._is_lost = False
        self._beginning = asyncio.Lock()
        self._share = Share(desk.shares, desk.clock.monotonic())

    @property
    def share(self) -> Share:
        """What the other side may use of this node's time."""
        return self._share

    def __len__(self) -> int:
        """Calls whose handlers have not ended."""
        return len(self._tasks)

    def close(self) -> None:
        """The link is gone."""
        if not self._is_lost:
            self._share.leave()
        self._is_lost = True
        for task in self._tasks.values():
            task.cancel()

    # ---- frames ---------------------------------------------------------------------------------------

    def on_call(self, call: int, payload: Bytes, held: int) -> None:
        ask = wire.parse_ask(payload)
        handler = self._desk.methods.unaries.get(ask.method)
        running = len(self._tasks) - len(self._channels)
        if not self._admit(call, ask, handler is not None, running, self._desk.limits.calls):
            self._budget.give(held)
            return
        assert handler is not None
        if held:
            self._held[call] = held
        self._start(call, ask, self._unary(call, ask, handler))

    def on_open(self, call: int, payload: Bytes, held: int) -> None:
        ask = wire.parse_ask(payload)
        credit = wire.parse_count(ask.body)
        handler = self._desk.methods.streams.get(ask.method)
        if not self._admit(call, ask, handler is not None, len(self._channels), self._desk.limits.streams):
            return
        assert handler is not None
        way = Way(call, self._out, ask.priority, abandon=lambda call: None)
        inbound = Inbound(INITIAL_CREDIT, self._desk.limits.window_bytes)
        channel = self._channels[call] = Channel(way, DOWN, inbound, Outbound(credit), self._budget)
        channel.acknowledge()
        self._start(call, ask, self._stream(call, ask, handler, channel))

    def on_cancel(self, call: int, payload: Bytes, held: int) -> None:
        wire.parse_nothing(payload)
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()
            return
        self._early[call] = None
        if len(self._early) > EARLY:
            self._early.popitem(last=False)

    def on_data(self, call: int, payload: Bytes, held: int) -> None:
        channel = self._channels.get(call)
        if channel is None:  # the handler has ended, which the caller could not know yet
            self._budget.give(held)
        else:
            channel.on_data(payload, held)

    def on_end(self, call: int, payload: Bytes, held: int) -> None:
        count = wire.parse_count(payload)
        if (channel := self._channels.get(call)) is not None:
            channel.on_end(count)

    def on_credit(self, call: int, payload: Bytes, held: int) -> None:
        credit = wire.parse_count(payload)
        if (channel := self._channels.get(call)) is not None:
            channel.on_credit(credit)

    # ---- one call -------------------------------------------------------------------------------------

    def _admit(self, call: int, ask: wire.Ask, is_known: bool, running: int, limit: int) -> bool:
        """Whether to run it; otherwise it has been answered."""
        if call in self._tasks:
            raise PeerFault(f"expected a new call, found another one numbered {call}")
        if call in self._early:
            del self._early[call]
            return False
        if self._desk.methods.is_draining:
            self._fail(call, Unavailable("this peer is going away; ask another"), ask.priority)
        elif running >= limit:
            self._fail(call, Overloaded(f"{running} calls of yours run here already; ask less at once"), ask.priority)
        elif not is_known:
            self._fail(call, self._unknown(ask.method), ask.priority)
        else:
            return True
        return False

    def _unknown(self, method: str) -> InvalidRequest:
        kinds = self._desk.methods
        if method in kinds.unaries or method in kinds.streams:
            other = "a single answer" if method in kinds.unaries else "a stream"
            return InvalidRequest(f"{method!r} is a call with {other}", "method", "unknown_method")
        return InvalidRequest(f"this peer answers no {method!r}; it may be older, or not share it", "method",
                              "unknown_method")  # fmt: skip

    def _start(self, call: int, ask: wire.Ask, work: Coroutine[None, None, None]) -> None:
        self._tasks[call] = asyncio.get_running_loop().create_task(self._guarded(call, ask, work))
        self._tasks[call].add_done_callback(lambda task: self._forget(call, work))

    async def _guarded(self, call: int, ask: wire.Ask, work: Coroutine[None, None, None]) -> None:
        try:
            if self._share.is_free:
                await work
            else:
                await self._turn()
                await Metered(work, self._share)
        except ShoalError as error:
            self._fail(call, error, ask.priority)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._fail(call, LocalError(f"{ask.method} was broken off here"), ask.priority)
        except Exception:
            LOG.exception("%s for %s failed", ask.method, self._peer.short)
            self._fail(call, LocalError(f"{ask.method} failed here; its log says why"), ask.priority)

    async def _turn(self) -> None:
        """Handlers begin one in each turn of the event loop, so that others get theirs, and a link's only while it has
        time left: a hundred calls that came at once would otherwise all have begun before any was counted."""
        async with self._beginning:
            while pause_s := self._share.pause_s(self._desk.clock.monotonic()):
                await self._desk.clock.sleep(pause_s)
            async with self._desk.turn:
                await asyncio.sleep(0)

    async def _unary(self, call: int, ask: wire.Ask, handler: UnaryHandler) -> None:
        incoming = self._incoming(ask)
        with self._limit(incoming):
            if ask.key:
                reply: Body = await self._keyed(incoming, ask, handler)
            else:
                reply = await handler(incoming, ask.body)
        await self._reply(call, reply, ask.priority)

    async def _reply(self, call: int, reply: Body, priority: int) -> None:
        """Small answers are bounded by the lane, large ones of all peers by a budget, and by how long they may lie."""
        size, parts = buffers_of(reply)
        if size <= BULK_BYTES:
            await self._out.send(wire.REPLY, call, b"", size, parts, priority)
            return
        if not self._desk.replies.fits(size):
            raise Overloaded("large answers that nobody takes fill this node; try again later")
        self._desk.replies.take_now(size)
        until = self._desk.clock.monotonic() + self._desk.limits.reply_s + size / REPLY_BYTES_PER_S
        try:
            with TimeLimit(self._desk.deadlines, until, "the answer was not taken in time"):
                await self._out.send(wire.REPLY, call, b"", size, parts, priority)
        finally:
            self._desk.replies.give(size)

    async def _keyed(self, incoming: Incoming, ask: wire.Ask, handler: UnaryHandler) -> bytes:
        async def handle() -> bytes:
            latest = self._desk.clock.monotonic() + KEPT_S
            deadline = latest if incoming.deadline is None else min(incoming.deadline, latest)
            with TimeLimit(self._desk.deadlines, deadline, f"{ask.method} did not end in time"):
                return b"".join(buffers_of(await handler(incoming, ask.body))[1])

        name = (self._peer, ask.method, ask.key)
        return await self._desk.once.run(name, handle, lambda: self._is_lost)

    async def _stream(self, call: int, ask: wire.Ask, handler: StreamHandler, channel: Channel) -> None:
        incoming = self._incoming(ask)
        with self._limit(incoming):
            await handler(incoming, channel)
        if channel.is_broken:
            raise LocalError(f"{ask.method} broke off inside a message")
        self._out.post(wire.REPLY, call, wire.COUNT.pack(channel.num_sent), ask.priority)

    def _incoming(self, ask: wire.Ask) -> Incoming:
        deadline = None if ask.timeout_s is None else self._desk.clock.monotonic() + ask.timeout_s
        return Incoming(self._peer, ask.method, deadline, self._info)

    def _limit(self, incoming: Incoming) -> TimeLimit:
        return TimeLimit(self._desk.deadlines, incoming.deadline, f"{incoming.method} did not end in time")

    def _fail(self, call: int, error: ShoalError, priority: int) -> None:
        if not self._is_lost:
            self._out.post(wire.ERROR, call, failure_bytes(error), priority)

    def _forget(self, call: int, work: Coroutine[None, None, None]) -> None:
        work.close()  # a task cancelled before it began never awaited it
        del self._tasks[call]
        self._budget.give(self._held.pop(call, 0))
        if (channel := self._channels.pop(call, None)) is not None:
            channel.drop()
            channel.fail(LocalError("this stream call has ended"))
