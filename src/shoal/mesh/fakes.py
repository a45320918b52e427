"""`LocalMesh`: peers whose `Caller` and `Answering` reach each other in memory, for tests of all that is above `rpc`.

Messages can be late, lost, cut off by a partition or by a crash; the same seed and the same calls give the same
run. Under a `VirtualClock` nothing sleeps and ten thousand peers fit in one process.

What it keeps of the contract (`calls`): every call ends once, deadlines and cancellation reach the handler, errors keep
their class, a stranger's exception becomes `LocalError`, streams have backpressure. What it does not have: bytes on a
wire, priorities, addresses (everybody reaches everybody), retries (a link here does not fail by itself).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shoal.core.clock import Clock
from shoal.core.errors import DeadlineExceeded, LinkClosed, LocalError, ShoalError, StreamReset, Unreachable
from shoal.mesh.calls import Body, CallOptions, Incoming, StreamHandler, UnaryHandler
from shoal.mesh.carrier import LinkInfo
from shoal.mesh.peer_id import PeerId

T = TypeVar("T")

ROOM = 16
"""Messages of a stream that wait on the reader before `send` waits for it."""

KEPT_S = 600.0
"""An answer with an idempotency key is given again for ten minutes."""

_PLAIN = CallOptions()


@dataclass(frozen=True, slots=True)
class Weather:
    """How messages travel. A lost message is found out by the caller's timeout, as on a network.

    delay_s  shortest and longest one-way time.
    loss     chance that a unary request or answer is lost; messages of a stream are late, never lost.
    """

    delay_s: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0


def numbered(number: int) -> PeerId:
    """A peer id for tests, without a key behind it."""
    return PeerId(random.Random(number).randbytes(32))  # noqa: S311  a test's id, not a secret


@dataclass(slots=True)
class LocalMesh:
    """The air between `LocalPeer`s. `num_calls` and `size_bytes` count what was sent, lost or not."""

    clock: Clock
    seed: int = 0
    weather: Weather = Weather()
    num_calls: int = 0
    size_bytes: int = 0
    _peers: dict[PeerId, LocalPeer] = field(default_factory=dict)
    _crashed: set[PeerId] = field(default_factory=set)
    _group: dict[PeerId, int] = field(default_factory=dict)
    _open: dict[PeerId, dict[asyncio.Task[Any], None]] = field(default_factory=dict)  # handlers at work, in order
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  a repeatable test, not a secret

    def join(self, peer: PeerId | None = None) -> LocalPeer:
        """A new peer; without an id the next of `numbered`."""
        peer = numbered(len(self._peers)) if peer is None else peer
        if peer in self._peers:
            raise ValueError(f"{peer.short} is in this mesh already")
        self._peers[peer] = LocalPeer(peer, self)
        self._open[peer] = {}
        return self._peers[peer]

    def crash(self, peer: PeerId) -> None:
        """It answers nobody from now on, calls nobody, and what was going on with it fails with `LinkClosed`."""
        self._crashed.add(peer)
        for task in list(self._open[peer]):
            task.cancel(_CUT)

    def restore(self, peer: PeerId) -> None:
        """The same peer is back, with its handlers."""
        self._crashed.discard(peer)

    def partition(self, *groups: Iterable[PeerId]) -> None:
        """Peers of different groups cannot reach each other; those in no group are a group of their own."""
        self._group = {peer: number for number, group in enumerate(groups, 1) for peer in group}

    def heal(self) -> None:
        self._group = {}

    def is_reachable(self, one: PeerId, other: PeerId) -> bool:
        here = one in self._peers and other in self._peers and not {one, other} & self._crashed
        return here and self._group.get(one, 0) == self._group.get(other, 0)

    # ---- for LocalPeer only --------------------------------------------------------------------------------

    def at(self, peer: PeerId) -> LocalPeer:
        return self._peers[peer]

    async def travel(self, size_bytes: int, may_lose: bool) -> None:
        """One message on its way; a lost one never comes."""
        self.size_bytes += size_bytes
        low, high = self.weather.delay_s
        if may_lose and self.weather.loss and self._random.random() < self.weather.loss:
            await asyncio.get_running_loop().create_future()
        if high > 0:
            await self.clock.sleep(self._random.uniform(low, high))

    def require(self, caller: PeerId, peer: PeerId) -> None:
        if not self.is_reachable(caller, peer):
            raise Unreachable(f"cannot reach {peer.short}", ("memory: crashed, partitioned or never joined",))

    async def ends(self, one: PeerId, other: PeerId, timeout_s: float, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`, which ends early by the timeout or by the crash of either peer."""
        task = asyncio.ensure_future(work)
        timer = asyncio.ensure_future(self.clock.sleep(timeout_s))
        self._open[one][task] = self._open[other][task] = None
        try:
            await asyncio.wait((task, timer), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise DeadlineExceeded(f"no answer from {other.short} within {timeout_s:g} s")
            if task.cancelled():
                raise LinkClosed(f"the link to {other.short} was cut")
            return task.result()
        finally:
            timer.cancel()
            self._open[one].pop(task, None)
            self._open[other].pop(task, None)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # also hears an error that came as this was cancelled


_CUT = "the link was cut"


class LocalPeer:
    """One peer: a `Caller` and an `Answering`."""

    def __init__(self, peer: PeerId, mesh: LocalMesh) -> None:
        self.peer = peer
        self._mesh = mesh
        self._unary: dict[str, UnaryHandler] = {}
        self._streaming: dict[str, StreamHandler] = {}
        self._kept: dict[tuple[PeerId, str, bytes], tuple[float, asyncio.Task[bytes]]] = {}

    def unary(self, method: str, handler: UnaryHandler) -> None:
        self._check_free(method)
        self._unary[method] = handler

    def streaming(self, method: str, handler: StreamHandler) -> None:
        self._check_free(method)
        self._streaming[method] = handler

    async def call(self, peer: PeerId, method: str, body: Body, options: CallOptions = _PLAIN) -> memoryview:
        _check(options)
        self._mesh.require(self.peer, peer)
        self._mesh.num_calls += 1
        work = self._round_trip(peer, method, _joined(body), options)
        answer = await self._mesh.ends(self.peer, peer, options.timeout_s, work)
        return memoryview(answer)

    @asynccontextmanager
    async def stream(self, peer: PeerId, method: str, options: CallOptions = _PLAIN) -> AsyncIterator[LocalStream]:
        _check(options)
        self._mesh.require(self.peer, peer)
        self._mesh.num_calls += 1
        here, there = _pair(self._mesh)
        handler = self._mesh.at(peer)._handle_stream(self._incoming(peer, method, options), there)
        task = asyncio.ensure_future(self._mesh.ends(self.peer, peer, options.timeout_s, handler))
        task.add_done_callback(there.finished)
        try:
            yield here
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            here.fail(StreamReset("this side left the call"))

    async def _round_trip(self, peer: PeerId, method: str, body: bytes, options: CallOptions) -> bytes:
        incoming = self._incoming(peer, method, options)
        await self._mesh.travel(len(body), may_lose=True)
        answer = await self._mesh.at(peer)._answer(incoming, body, options.idempotency_key)
        await self._mesh.travel(len(answer), may_lose=True)
        return answer

    def _incoming(self, peer: PeerId, method: str, options: CallOptions) -> Incoming:
        deadline = self._mesh.clock.monotonic() + options.timeout_s
        info = LinkInfo("memory", "direct", f"memory:{self.peer.short}", 0.0, is_dialer=False)
        return Incoming(self.peer, method, deadline, lambda: info)

    async def _answer(self, incoming: Incoming, body: bytes, key: bytes | None) -> bytes:
        if key is None:
            return await self._handle(incoming, body)
        now = self._mesh.clock.monotonic()
        name = (incoming.peer, incoming.method, key)
        kept = self._kept.get(name)
        if kept is None or kept[0] <= now or (kept[1].done() and (kept[1].cancelled() or kept[1].exception())):
            kept = self._kept[name] = (now + KEPT_S, asyncio.ensure_future(self._handle(incoming, body)))
        return await asyncio.shield(kept[1])

    async def _handle(self, incoming: Incoming, body: bytes) -> bytes:
        if incoming.method not in self._unary:
            raise LocalError(f"no method {incoming.method!r} at {self.peer.short}")
        with _StrangersHidden():
            return _joined(await self._unary[incoming.method](incoming, memoryview(body)))

    async def _handle_stream(self, incoming: Incoming, stream: LocalStream) -> None:
        if incoming.method not in self._streaming:
            raise LocalError(f"no method {incoming.method!r} at {self.peer.short}")
        with _StrangersHidden():
            await self._streaming[incoming.method](incoming, stream)
            await stream.end()

    def _check_free(self, method: str) -> None:
        if method in self._unary or method in self._streaming:
            raise ValueError(f"{method!r} is registered already")


class LocalStream:
    """One side of a stream call."""

    def __init__(self, mesh: LocalMesh, inbox: asyncio.Queue[bytes | None]) -> None:
        self._mesh = mesh
        self._inbox = inbox
        self._other: LocalStream = self
        self._error: ShoalError | None = None
        self._failed = asyncio.Event()
        self._ended = False

    async def send(self, message: Body) -> None:
        data = _joined(message)
        await self._mesh.travel(len(data), may_lose=False)
        await self._until_failed(self._other._inbox.put(data))

    async def end(self) -> None:
        if not self._ended:
            self._ended = True
            await self._until_failed(self._other._inbox.put(None))

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        while (data := await self._next()) is not None:
            yield memoryview(data)

    def fail(self, error: ShoalError) -> None:
        """Every call on this side raises `error` from now on, after what had arrived."""
        self._error = self._error or error
        self._failed.set()

    def finished(self, task: asyncio.Future[None]) -> None:
        """The handler has ended: its error, or the loss of its link, is the caller's."""
        error: BaseException | None = StreamReset("the other side gave up") if task.cancelled() else task.exception()
        if isinstance(error, ShoalError):
            self._other.fail(error)
            self.fail(error)

    async def _next(self) -> bytes | None:
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        return await self._until_failed(self._inbox.get())

    async def _until_failed(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        failed = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait((task, failed), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._error or LinkClosed("closed")
        finally:
            task.cancel()
            failed.cancel()


def _pair(mesh: LocalMesh) -> tuple[LocalStream, LocalStream]:
    here, there = LocalStream(mesh, asyncio.Queue(ROOM)), LocalStream(mesh, asyncio.Queue(ROOM))
    here._other, there._other = there, here
    return here, there


class _StrangersHidden:
    """A handler's exception that is no `ShoalError` becomes a `LocalError` without its text."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ShoalError):
            raise LocalError("the other side failed") from error


def _check(options: CallOptions) -> None:
    if options.retries and options.idempotency_key is None:
        raise ValueError("retries need an idempotency key")


def _joined(body: Body) -> bytes:
    return bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) else b"".join(body)
