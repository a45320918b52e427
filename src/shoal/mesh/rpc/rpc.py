"""`Rpc`: calls to and from every peer, over links that somebody else makes."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shoal.core.clock import Clock
from shoal.core.errors import BadConfig, DeadlineExceeded, LinkClosed, PeerFault, ShoalError, Unavailable, Unreachable
from shoal.mesh.calls import Body, CallOptions, CallStream, StreamHandler, UnaryHandler
from shoal.mesh.carrier import Link, LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc.bulk import Budget
from shoal.mesh.rpc.deadlines import Deadlines, TimeLimit
from shoal.mesh.rpc.hello import NONCE_BYTES, SECRET_BYTES, VERSIONS, Handshake, Hello
from shoal.mesh.rpc.limits import Limits
from shoal.mesh.rpc.once import Once
from shoal.mesh.rpc.serving import Desk, Methods
from shoal.mesh.rpc.session import Session, agree
from shoal.mesh.rpc.share import Shares

LOG = logging.getLogger(__name__)

Connect = Callable[[PeerId], Awaitable[Link]]
"""A live link to a peer, made where there is none; `Unreachable` says why not. The switchboard's `link`."""

BACKOFF_S = 0.1
"""Before the first retry; doubles. The switchboard has its own for dialing."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What this node says of itself to each peer. `secret`: SECRET_BYTES random bytes of a private swarm."""

    me: PeerId
    agent: str
    features: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)
    versions: tuple[int, int] = VERSIONS

    def __post_init__(self) -> None:
        if self.secret is not None and len(self.secret) != SECRET_BYTES:
            raise BadConfig("swarm", f"expected a secret of {SECRET_BYTES} bytes, found {len(self.secret)}")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One link that is in use. `asking` and `serving` count the calls that run now."""

    peer: PeerId
    agent: str
    version: int
    features: tuple[str, ...]
    link: LinkInfo
    asking: int
    serving: int


@dataclass(eq=False, slots=True)
class _Entry:
    link: Link
    ready: asyncio.Future[Session]
    task: asyncio.Task[None] | None = None
    session: Session | None = None
    has_begun: bool = False
    is_unwanted: bool = False


class Rpc:
    """`Caller` and `Answering`. `connect` is asked for a link at every call; links that others dialled go to
    `accepted`. Register methods before the first link. `close` ends everything; `drain` lets running calls finish.
    """

    def __init__(
        self, introduction: Introduction, connect: Connect, clock: Clock, limits: Limits | None = None
    ) -> None:
        self._introduction, self._connect, self._clock = introduction, connect, clock
        self._limits = limits or Limits()
        self._deadlines = Deadlines(clock)
        self._methods = Methods()
        self._once = Once(clock)
        self._desk = Desk(
            self._methods, clock, self._deadlines, self._once, self._limits,
            Budget(self._limits.all_incoming_bytes), Budget(self._limits.reply_bytes), Shares(self._limits),
        )  # fmt: skip
        self._entries: dict[int, _Entry] = {}  # by id(link): a link need not be hashable
        self._is_closed = False

    # ---- Answering ------------------------------------------------------------------------------------

    def unary(self, method: str, handler: UnaryHandler) -> None:
        self._methods.unary(method, handler)

    def streaming(self, method: str, handler: StreamHandler) -> None:
        self._methods.streaming(method, handler)

    def accepted(self, link: Link) -> None:
        """A link somebody dialled: say hello and answer calls until it ends. Never waits."""
        self._entry(link)

    # ---- Caller ---------------------------------------------------------------------------------------

    async def call(self, peer: PeerId, method: str, body: Body, options: CallOptions | None = None) -> memoryview:
        options = options or _DEFAULT
        tries_left = _retries(options)
        until = self._clock.monotonic() + options.timeout_s
        with self._limit(method, options, until):
            while True:
                session: Session | None = None
                try:
                    session = await self._session(peer, options.connect_s)
                    return await session.asking.ask(method, body, options, until - self._clock.monotonic())
                except (LinkClosed, Unreachable):
                    if not tries_left or (session is not None and not session.is_closed):
                        raise
                tries_left -= 1
                await self._clock.sleep(BACKOFF_S * 2 ** (options.retries - tries_left - 1))

    @asynccontextmanager
    async def stream(self, peer: PeerId, method: str, options: CallOptions | None = None) -> AsyncIterator[CallStream]:
        """`timeout_s` covers the whole call; `retries` are refused: a stream cannot be begun again unseen."""
        options = options or _DEFAULT
        if options.retries:
            raise ValueError("a stream call is not retried; open it again where that is safe")
        until = self._clock.monotonic() + options.timeout_s
        with self._limit(method, options, until):
            session = await self._session(peer, options.connect_s)
            async with session.asking.stream(method, options, until - self._clock.monotonic()) as channel:
                yield channel

    # ---- all links ------------------------------------------------------------------------------------

    def conversations(self) -> tuple[Conversation, ...]:
        """Every link that has said hello."""
        found = [entry.session for entry in self._entries.values() if entry.session is not None]
        return tuple(
            Conversation(
                session.link.peer, session.agreed.theirs.agent, session.agreed.version,
                session.agreed.theirs.features, session.link.info(), len(session.asking), len(session.serving),
            )
            for session in found
        )  # fmt: skip

    def is_busy(self, link: Link) -> bool:
        """Whether calls run over this link, or it has not said hello yet."""
        entry = self._entries.get(id(link))
        if entry is None:
            return False
        return entry.session is None or len(entry.session.asking) + len(entry.session.serving) > 0

    async def drain(self, timeout_s: float) -> bool:
        """Answer new calls with Unavailable and wait for those that run; whether all ended in time."""
        self._methods.is_draining = True
        until = self._clock.monotonic() + timeout_s
        while self._num_serving() and self._clock.monotonic() < until:
            await self._clock.sleep(min(0.02, until - self._clock.monotonic()))
        return not self._num_serving()

    async def close(self) -> None:
        """Close every link. Calls of ours fail with LinkClosed, handlers see CancelledError. Twice is harmless."""
        self._is_closed = True
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for entry in self._entries.values():
            self._end(entry)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._once.close()
        self._deadlines.close()

    def _num_serving(self) -> int:
        sessions = [entry.session for entry in self._entries.values() if entry.session is not None]
        return sum(len(session.serving) for session in sessions) + len(self._once)

    def _limit(self, method: str, options: CallOptions, until: float) -> TimeLimit:
        at = None if math.isinf(until) else until
        return TimeLimit(self._deadlines, at, f"{method} did not end within {options.timeout_s:g} s")

    async def _session(self, peer: PeerId, connect_s: float) -> Session:
        if self._is_closed:
            raise Unavailable("this node's mesh is closed")
        at = None if math.isinf(connect_s) else self._clock.monotonic() + connect_s
        text = f"{peer.short} could not be reached within {connect_s:g} s"
        entry: _Entry | None = None
        try:
            with TimeLimit(self._deadlines, at, text):
                entry = self._entry(await self._connect(peer))
                return entry.session if entry.session is not None else await asyncio.shield(entry.ready)
        except DeadlineExceeded as error:
            raise Unreachable(text, ("no link" if entry is None else "a link, but no hello over it",)) from error

    def _entry(self, link: Link) -> _Entry:
        entry = self._entries.get(id(link))
        if entry is None:
            loop = asyncio.get_running_loop()
            entry = self._entries[id(link)] = _Entry(link, loop.create_future())
            entry.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
            entry.task = loop.create_task(self._serve(entry), name=f"rpc {link.peer.short}")
            self._make_room(entry)
        return entry

    async def _serve(self, entry: _Entry) -> None:
        """One link, from hello to end."""
        reason = "going away"
        entry.has_begun = True
        try:
            if entry.is_unwanted:
                raise Unavailable("too many links; try again later")
            stream, agreed = await agree(entry.link, self._handshake(entry.link), self._desk)
            entry.session = Session(entry.link, stream, agreed, self._desk)
            entry.ready.set_result(entry.session)
            await entry.session.run()
        except ShoalError as error:
            reason = str(error)[:200]
            LOG.log(logging.WARNING if isinstance(error, PeerFault) else logging.INFO,
                    "link to %s: %s", entry.link.peer.short, reason)  # fmt: skip
            self._fail(entry, error)
        finally:
            self._fail(entry, LinkClosed(f"the connection to {entry.link.peer.short} was closed here"))
            del self._entries[id(entry.link)]
            await entry.link.close(reason)

    def _fail(self, entry: _Entry, error: ShoalError) -> None:
        if not entry.ready.done():
            if isinstance(error, LinkClosed | DeadlineExceeded):
                error = Unreachable(f"no conversation with {entry.link.peer.short}", (f"hello: {error}",))
            entry.ready.set_exception(error)

    def _handshake(self, link: Link) -> Handshake:
        ours = self._introduction
        mine = Hello(
            ours.agent[:100], secrets.token_bytes(NONCE_BYTES), ours.versions, ours.features, self._limits.calls,
            self._limits.streams, self._limits.window_bytes, ours.secret is not None,
        )  # fmt: skip
        return Handshake(ours.me, link.peer, mine, link.info().is_dialer, ours.secret)

    def _make_room(self, new: _Entry) -> None:
        """Close the oldest link of a peer that has too many, and of too many that say hello the one that began first:
        an honest hello takes a moment, so whoever fills these places with silence makes room for it."""
        wanted = [entry for entry in self._entries.values() if not entry.is_unwanted]
        same = [entry for entry in wanted if entry.link.peer == new.link.peer]
        if len(same) > self._limits.links_per_peer:
            self._end(same[0])
            return
        silent = [entry for entry in wanted if entry.session is None]
        if len(silent) > self._limits.hellos:
            self._end(silent[0])

    def _end(self, entry: _Entry) -> None:
        entry.is_unwanted = True
        if entry.task is not None and entry.has_begun:  # cancelled before it begins, it would close nothing
            entry.task.cancel()


_DEFAULT = CallOptions()


def _retries(options: CallOptions) -> int:
    if options.retries and options.idempotency_key is None:
        raise ValueError("retries need an idempotency_key: without one the call might run twice")
    return options.retries
