"""One link from its hello to its end: reads frames, hands each to the side it concerns, and closes what is left.

Rules that stay true in this file:
- when a session ends, every call over it has ended and none of its tasks is left;
- a peer that breaks the protocol is told once, by the reason the link closes with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from shoal.core.errors import LinkClosed, PeerFault, ShoalError, StreamReset
from shoal.mesh.carrier import Bytes, Link, Stream
from shoal.mesh.rpc import wire
from shoal.mesh.rpc.asking import Asking
from shoal.mesh.rpc.bulk import Budget, BulkSender
from shoal.mesh.rpc.deadlines import TimeLimit
from shoal.mesh.rpc.frames import FrameReader
from shoal.mesh.rpc.hello import Agreed, Handshake
from shoal.mesh.rpc.lane import Lane
from shoal.mesh.rpc.limits import BULK_BYTES, BULK_STREAMS, LANE_FLOOD_BYTES
from shoal.mesh.rpc.outgoing import Outgoing
from shoal.mesh.rpc.serving import Desk, Serving
from shoal.mesh.rpc.share import Share

LANE_PRIORITY = 1
LANE_READ = 2**18
PACED_READ = 2**14
"""Of a link whose time is counted: what one read brings about is done before anybody else's turn, so it is little."""
BULK_READ = 2**18
GRACE_S = 1.0
"""How long a refused peer has to read why before the link closes."""

OnFrame = Callable[[int, Bytes, int], None]


async def agree(link: Link, handshake: Handshake, desk: Desk) -> tuple[Stream, Agreed]:
    """Say hello on the link's first stream, which becomes the lane. Raises why the two do not go together."""
    at = desk.clock.monotonic() + desk.limits.hello_s
    with TimeLimit(desk.deadlines, at, f"expected a hello within {desk.limits.hello_s:g} s, found none"):
        stream = await (link.open(LANE_PRIORITY) if handshake.is_dialer else link.accept())
        out = handshake.start()
        while handshake.agreed is None:
            if out:
                await stream.write(out)
            if handshake.refused is not None:
                if not handshake.is_dialer:  # it may not have read yet what tells it why
                    await _linger(link, desk)
                raise handshake.refused
            data = await stream.read(LANE_READ)
            if not data:
                raise PeerFault("expected a hello, found the end of the stream")
            out = handshake.receive(data)
        if out:
            await stream.write(out)
    return stream, handshake.agreed


async def _linger(link: Link, desk: Desk) -> None:
    closed = asyncio.ensure_future(link.closed())
    grace = asyncio.ensure_future(desk.clock.sleep(GRACE_S))
    try:
        await asyncio.wait((closed, grace), return_when=asyncio.FIRST_COMPLETED)
    finally:
        closed.cancel()
        grace.cancel()


class Session:
    """Calls over one link, both ways, after the hello."""

    def __init__(self, link: Link, lane: Stream, agreed: Agreed, desk: Desk) -> None:
        self.link, self.agreed = link, agreed
        self._stream = lane
        self._lane = Lane(lane)
        self._budget = Budget(desk.limits.incoming_bytes, desk.incoming)
        self._desk = desk
        out = Outgoing(self._lane, BulkSender(link))
        self.asking = Asking(out, self._budget, agreed.theirs, desk.limits)
        self.serving = Serving(link.peer, link.info, out, self._budget, desk)
        self.is_closed = False
        self._on: dict[int, OnFrame] = {
            wire.CALL: self.serving.on_call, wire.OPEN: self.serving.on_open, wire.CANCEL: self.serving.on_cancel,
            wire.UP_DATA: self.serving.on_data, wire.UP_END: self.serving.on_end,
            wire.UP_CREDIT: self.serving.on_credit, wire.REPLY: self.asking.on_reply, wire.ERROR: self.asking.on_error,
            wire.DOWN_DATA: self.asking.on_data, wire.DOWN_END: self.asking.on_end,
            wire.DOWN_CREDIT: self.asking.on_credit,
        }  # fmt: skip

    async def run(self) -> None:
        """Until the link ends, the other side breaks the protocol (PeerFault), or this is cancelled."""
        error: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lane.run())
                group.create_task(self._read_lane(self.agreed.rest))
                group.create_task(self._accept_bulk(group))
        except* Exception as several:
            error = _first(several)
        finally:
            self._close(error)
        if isinstance(error, PeerFault) or not isinstance(error, ShoalError | None):
            raise error

    def _close(self, error: Exception | None) -> None:
        self.is_closed = True
        why = str(error) if error else "this node closed it"
        self.asking.close(LinkClosed(f"the connection to {self.link.peer.short} ended: {why}"))
        self.serving.close()

    async def _read_lane(self, data: bytes) -> None:
        reader = FrameReader(BULK_BYTES + wire.HEAD_ROOM)
        on, share = self._on, self.serving.share
        while True:
            began = perf_counter()
            frames = reader.feed(data)
            for kind, call, payload in frames:
                act = on.get(kind)
                if act is None:
                    raise PeerFault(f"expected a frame of kind 1 to {len(on)}, found {kind}")
                act(call, payload, 0)
            if self._lane.queued > LANE_FLOOD_BYTES:
                raise PeerFault(f"expected a peer that reads its answers, found {self._lane.queued} bytes unread")
            self._lane.begin_turn(len(frames) == 1 and len(self.asking) + len(self.serving) == 1)
            await self._pause(share, perf_counter() - began)
            data = await self._stream.read(LANE_READ if share.is_free else PACED_READ)
            if not data:
                raise LinkClosed("the other side has stopped talking")

    async def _pause(self, share: Share, spent_s: float) -> None:
        """Leave a link unread whose other side has used up its part of this node's time."""
        share.spend(spent_s)
        if pause_s := share.pause_s(self._desk.clock.monotonic()):
            await self._desk.clock.sleep(pause_s)

    async def _accept_bulk(self, group: asyncio.TaskGroup) -> None:
        readers: set[asyncio.Task[None]] = set()
        while True:
            stream = await self.link.accept()
            if len(readers) >= 2 * BULK_STREAMS:  # twice: some may have been reset and replaced a moment ago
                raise PeerFault(f"expected at most {BULK_STREAMS} streams for large messages, found {len(readers)}")
            task = group.create_task(self._read_bulk(stream))
            readers.add(task)
            task.add_done_callback(readers.discard)

    async def _read_bulk(self, stream: Stream) -> None:
        reader = FrameReader(self._desk.limits.message_bytes + wire.HEAD_ROOM)
        taken = 0
        try:
            while data := await stream.read(BULK_READ):
                began = perf_counter()
                for kind, call, payload in reader.feed(data):
                    held, taken = taken, 0
                    if not held:
                        held = len(payload)
                        self._budget.take_now(held)
                    if kind not in wire.BULK_KINDS:
                        raise PeerFault(f"expected a large message, found a frame of kind {kind}")
                    self._on[kind](call, payload, held)
                await self._pause(self.serving.share, perf_counter() - began)
                await asyncio.sleep(0)  # what is small goes first, even while this stream always has more
                if reader.pending and not taken:
                    await self._budget.take(reader.pending)
                    taken = reader.pending
        except StreamReset:
            pass  # its sender broke off, and says so on the lane
        finally:
            self._budget.give(taken)


def _first(several: BaseExceptionGroup[Exception]) -> Exception:
    """The one to report: a fault of the peer before the end of the link that followed from it."""
    flat = list[Exception]()
    for error in several.exceptions:
        flat += [_first(error)] if isinstance(error, BaseExceptionGroup) else [error]
    return next((error for error in flat if isinstance(error, PeerFault)), flat[0])
