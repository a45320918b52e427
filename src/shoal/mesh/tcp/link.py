"""One TLS connection as a link: frames of many streams in, frames by priority out, pings, one end for everything.

A write goes to the socket at once where it has room. Where it has not, frames wait in a heap: the highest priority
first, equal ones in order of arrival, one frame of a stream at a time, so a 100 MB transfer holds up others by the
128 KiB the kernel may keep unsent (`wire`) and one frame.

What this does not protect against: a peer that uses what it may, MAX_STREAMS windows of unread bytes (128 MiB) and
GROWTH more, should the application above not read; `carrier.MAX_UNREAD` bounds all links together.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed, PeerFault, StreamReset
from shoal.core.text import plain
from shoal.mesh.carrier import NO_FAREWELL, LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.tcp import frames
from shoal.mesh.tcp.frames import CLOSE, MAX_REASON_BYTES, OPEN, PING, PONG, PRIORITY_ZERO, Parser, header
from shoal.mesh.tcp.stream import TcpStream
from shoal.mesh.tcp.wire import Wire
from shoal.mesh.waiting import Allowance, Inbox

MAX_STREAMS = 512
"""One side's streams at once; `open` waits for room, a peer that opens more is at fault."""
GROWTH = 32 * 2**20
"""Bytes by which the windows of one link's streams may grow together."""
BATCH_BYTES = 65_536
MAX_URGENT = 2**20
"""Answers (pongs, credit) that a peer may leave unread."""
PING_S = 10.0
SILENCE_S = 30.0
"""Three pings unanswered."""
FAREWELL_S = 1.0


@dataclass(frozen=True, slots=True)
class Loan:
    """What a link uses of its carrier: a receiving buffer shared by all (parsing never waits), a clock, an end, and
    who counts what waits to be read on all links."""

    buffer: memoryview
    clock: Clock
    on_end: Callable[[TcpLink], None]
    spawn: Callable[[asyncio.Task[None]], None]
    hold: Callable[[TcpLink, int], None] = lambda link, size: None


@dataclass(slots=True)
class Waiting:
    """A frame that waits for the socket. `payload` is the caller's own buffer until `sent` is set."""

    head: bytes
    payload: memoryview
    sent: asyncio.Future[None]


@dataclass(slots=True)
class Counts:
    sent: int = 0
    received: int = 0
    heard: float = 0.0
    rtt_s: float | None = None
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=6))
    pings: dict[int, float] = field(default_factory=dict)


class TcpLink:
    """`info` is what is fixed; `spare` bytes are credit for windows to grow."""

    def __init__(self, wire: Wire, peer: PeerId, info: LinkInfo, loan: Loan) -> None:
        self._wire = wire
        self._peer = peer
        self._info = info
        self._loan = loan
        self._loop = asyncio.get_running_loop()
        self._parser = Parser()
        self._counts = Counts(heard=info.since)
        self._streams: dict[int, TcpStream] = {}
        self._mine = itertools.count(1 if info.is_dialer else 2, 2)
        self._fresh: dict[TcpStream, None] = {}
        self._highest = 0
        self._theirs = 0
        self._room = Allowance(MAX_STREAMS)
        self._spare = GROWTH
        self._incoming: Inbox[TcpStream] = Inbox()
        self._unseen: dict[int, TcpStream] = {}
        self._urgent = bytearray()
        self._stuck = bytearray()
        self._queue: list[tuple[int, int, Waiting]] = []
        self._order = itertools.count()
        self._reason: asyncio.Future[str] = self._loop.create_future()
        self._loop.add_reader(wire.number, self._readable)
        self._keeping = self._loop.create_task(self._keep())
        if wire.has_more:
            self._loop.call_soon(self._readable)

    # ---- the contract -----------------------------------------------------------------------------------

    @property
    def peer(self) -> PeerId:
        return self._peer

    def info(self) -> LinkInfo:
        counts = self._counts
        return replace(self._info, rtt_s=counts.rtt_s, bytes_sent=counts.sent, bytes_received=counts.received)

    async def open(self, priority: int = 0) -> TcpStream:
        await self._room.take(1)
        stream = TcpStream(self, max(-PRIORITY_ZERO, min(priority, PRIORITY_ZERO - 1)))
        self._fresh[stream] = None
        return stream

    async def accept(self) -> TcpStream:
        return await self._incoming.get()

    async def close(self, reason: str = "") -> None:
        if not self._reason.done():
            text = reason[:200].encode()[:MAX_REASON_BYTES]
            self._end(f"closed by this side: {reason or 'no reason given'}", header(CLOSE, len(text), 0) + text)

    async def closed(self) -> str:
        return await asyncio.shield(self._reason)

    # ---- what streams use -------------------------------------------------------------------------------

    def say(self, frame: bytes) -> None:
        if not self._reason.done():
            self._urgent += frame
            self._flush()
            if len(self._urgent) > MAX_URGENT:
                self._loop.call_soon(self._end, "the other side does not read what it asks for")

    async def send(self, priority: int, head: bytes, payload: memoryview, unsent: Callable[[int], None]) -> None:
        if not self._stuck and not self._queue:
            self._put(head, payload)
            return
        waiting = Waiting(head, payload, self._loop.create_future())
        heapq.heappush(self._queue, (-priority, next(self._order), waiting))
        try:
            await waiting.sent
        except asyncio.CancelledError:
            if waiting.sent.cancelled():
                unsent(len(payload))
            raise

    def hold(self, size: int) -> None:
        self._loan.hold(self, size)

    def grow(self, size: int) -> bool:
        if size > self._spare:
            return False
        self._spare -= size
        return True

    def pace(self) -> tuple[float, float]:
        """The shortest of the last minute: a ping behind bulk measures the bulk."""
        return self._loan.clock.monotonic(), min(self._counts.recent_s, default=0.0)

    def begin(self, stream: TcpStream) -> int:
        self._fresh.pop(stream, None)
        number = next(self._mine)
        self._streams[number] = stream
        self._urgent += header(OPEN, PRIORITY_ZERO + stream.priority, number)
        return number

    def forget(self, stream: TcpStream) -> None:
        self._fresh.pop(stream, None)
        self._streams.pop(stream.number, None)
        if stream.is_mine:
            self._room.give(1)
        else:
            self._theirs -= 1

    # ---- out --------------------------------------------------------------------------------------------

    def _put(self, head: bytes, payload: memoryview) -> None:
        """Send a frame on a socket that was free a moment ago."""
        out = self._urgent
        out += head
        out += payload
        self._flush()

    def _flush(self) -> None:
        """Everything urgent, then the queue, until the socket has no room. Never inside itself."""
        if self._stuck:
            return
        try:
            while self._fill():
                self._counts.sent += len(self._urgent)
                out, self._urgent = self._urgent, bytearray()
                if not self._wire.send(out):
                    self._stuck = out
                    self._loop.add_writer(self._wire.number, self._writable)
                    return
        except (OSError, ssl.SSLError) as error:
            self._loop.call_soon(self._lost, error)

    def _fill(self) -> bool:
        """Top up what is to be sent from the queue; whether there is anything."""
        while self._queue and len(self._urgent) < BATCH_BYTES:
            waiting = heapq.heappop(self._queue)[2]
            if not waiting.sent.done():
                self._urgent += waiting.head
                self._urgent += waiting.payload
                waiting.sent.set_result(None)
        return bool(self._urgent)

    def _writable(self) -> None:
        try:
            if not self._wire.send(self._stuck):
                return
        except (OSError, ssl.SSLError) as error:
            self._lost(error)
            return
        self._loop.remove_writer(self._wire.number)
        self._stuck = bytearray()
        self._flush()

    # ---- in ---------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._reason.done():
            return
        try:
            size, is_over = self._wire.receive_into(self._loan.buffer)
            self._counts.received += size
            self._counts.heard = self._loan.clock.monotonic()
            for kind, value, number, payload in self._parser.feed(self._loan.buffer[:size]):
                self._frame(kind, value, number, payload)
                if self._reason.done():
                    return
        except PeerFault as error:
            text = str(error).encode()[:MAX_REASON_BYTES]
            self._end(f"the other side broke the protocol: {error}", header(CLOSE, len(text), 0) + text)
        except (OSError, ssl.SSLError) as error:
            self._lost(error)
        else:
            if is_over:
                self._end(f"{NO_FAREWELL}: the other side stopped, or the network cut it")
            elif self._wire.has_more:
                self._loop.call_soon(self._readable)

    def _frame(self, kind: int, value: int, number: int, payload: memoryview) -> None:
        stream = self._streams.get(number)
        match kind:
            case frames.DATA if stream is not None:
                stream.receive(payload)
                self._show(stream)
            case frames.FINISH if stream is not None:
                stream.end()
                self._show(stream)
            case frames.RESET if stream is not None:
                self._unseen.pop(number, None)
                stream.fail(StreamReset("the other side gave up this stream"))
            case frames.CREDIT if stream is not None:
                stream.granted(value)
            case frames.OPEN:
                self._opened(number, value - PRIORITY_ZERO)
            case frames.PING:
                self.say(header(PONG, 0, number))
            case frames.PONG:
                self._measure(number)
            case frames.CLOSE:
                text = plain(bytes(payload).decode(errors="replace")[:200])
                self._end(f"closed by the other side: {text or 'no reason given'}", b"")
            case _ if not self._was_there(number):
                raise PeerFault(f"stream {number} was never opened")

    def _opened(self, number: int, priority: int) -> None:
        is_theirs = number % 2 == (0 if self._info.is_dialer else 1)
        if not is_theirs or number <= self._highest:
            raise PeerFault(f"expected a new stream above {self._highest} of the other side, found {number}")
        if self._theirs >= MAX_STREAMS:
            raise PeerFault(f"expected at most {MAX_STREAMS} streams at once, found one more")
        self._highest = number
        self._theirs += 1
        self._streams[number] = self._unseen[number] = TcpStream(self, priority, number)

    def _show(self, stream: TcpStream) -> None:
        """A stream is seen by `accept` with its first byte, or its end."""
        if self._unseen.pop(stream.number, None) is not None:
            self._incoming.put(stream)

    def _was_there(self, number: int) -> bool:
        """Whether a frame may be late: of a stream that this side has forgotten."""
        is_theirs = number % 2 == (0 if self._info.is_dialer else 1)
        return 0 < number <= self._highest if is_theirs else number > 0

    # ---- life -------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Ping, and notice when nothing comes back."""
        clock = self._loan.clock
        for number in itertools.count(1):
            now = clock.monotonic()
            if now - self._counts.heard > SILENCE_S:
                self._end(f"nothing heard for {SILENCE_S:.0f} s: the other side is gone, or the network is cut")
                return
            self._counts.pings = {number % 2**32: now}
            self.say(header(PING, 0, number % 2**32))
            await clock.sleep(PING_S)

    def _measure(self, number: int) -> None:
        started = self._counts.pings.pop(number, None)
        if started is not None:
            sample = self._loan.clock.monotonic() - started
            before = self._counts.rtt_s
            self._counts.recent_s.append(sample)
            self._counts.rtt_s = sample if before is None else 0.75 * before + 0.25 * sample

    def _lost(self, error: Exception) -> None:
        is_gone = isinstance(error, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError)
        self._end(f"{NO_FAREWELL if is_gone else 'the connection broke'}: {error}")

    def _end(self, reason: str, last: bytes | None = None) -> None:
        """The end, once. `last`: what is still said to the other side; None where it would not hear it."""
        if self._reason.done():
            return
        self._reason.set_result(reason)
        self._keeping.cancel()
        self._loop.remove_reader(self._wire.number)
        self._loop.remove_writer(self._wire.number)
        error = LinkClosed(f"the link to {self._peer.short} has ended: {reason}")
        self._room.fail(error)
        self._incoming.close(error)
        for stream in [*self._streams.values(), *self._fresh]:
            stream.fail(error)
        for _, _, waiting in self._queue:
            if not waiting.sent.done():
                waiting.sent.set_exception(LinkClosed(str(error)))
        self._loan.spawn(self._loop.create_task(self._part(last)))
        self._loan.on_end(self)

    async def _part(self, last: bytes | None) -> None:
        try:
            if last is not None:
                async with asyncio.timeout(FAREWELL_S):
                    await self._wire.farewell(self._stuck, bytes(self._urgent) + last)
        except TimeoutError:
            pass
        finally:
            self._wire.close()
