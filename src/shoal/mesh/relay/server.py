"""The relay's sockets: WebSockets in front of `core`, which decides everything.

What this does not protect against: see the package's docstring.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import itertools
import logging
import secrets
from collections import Counter
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from shoal.core.clock import Clock, SystemClock
from shoal.core.errors import BadConfig, PeerFault
from shoal.mesh.peer_id import PeerId
from shoal.mesh.relay import core, frames
from shoal.mesh.relay.config import RelayConfig, RelayLimits
from shoal.mesh.tcp.endpoint import of_socket

log = logging.getLogger(__name__)

WRITE_BUFFER_BYTES = 256 * 1024
CLOSE_S = 2.0


class Knock(ServerConnection):
    """A connection, counted from its first byte: who opens many and asks nothing holds no more than who is served."""

    def __init__(self, knocks: Counter[str], limits: RelayLimits, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._knocks, self._limits, self._site = knocks, limits, ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        knocks, limits = self._knocks, self._limits
        site = _site(transport.get_extra_info("peername"))
        is_crowd = knocks[site] >= limits.per_address + limits.knocking
        if is_crowd or knocks.total() >= limits.clients + limits.knocking:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
            return
        self._site = site
        knocks[site] += 1
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._site:
            self._knocks[self._site] -= 1
            if not self._knocks[self._site]:
                del self._knocks[self._site]
            super().connection_lost(exc)


class RelayServer:
    """A relay that listens. Made by `start`."""

    def __init__(self, config: RelayConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._core = core.Relay(config.limits)
        self._queues: dict[int, asyncio.Queue[bytes | None]] = {}
        self._sockets: dict[int, ServerConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._from: Counter[str] = Counter()
        self._knocks: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._server: Server | None = None
        self._writers: set[asyncio.Task[None]] = set()
        self._is_closing = False

    @classmethod
    async def start(cls, config: RelayConfig) -> Self:
        """Listen. BadConfig for an address or certificate that cannot be used."""
        relay = cls(config)
        try:
            relay._server = await serve(
                relay._session,
                config.host,
                config.port,
                ssl=config.tls(),
                process_request=relay._request,
                subprotocols=[Subprotocol(version) for version in frames.VERSIONS],
                compression=None,  # sealed packets do not shrink
                max_size=frames.MAX_FRAME_BYTES,
                max_queue=16,
                write_limit=WRITE_BUFFER_BYTES,
                create_connection=relay._connection,  # type: ignore[arg-type]  # called like the class
                open_timeout=config.limits.handshake_s,
                ping_interval=None,  # clients ping by the protocol's own frames
                close_timeout=CLOSE_S,
                server_header=None,
            )
        except OSError as error:
            raise BadConfig("relay", f"cannot listen at {config.host}:{config.port}: {error}") from error
        return relay

    @property
    def port(self) -> int:
        """The port it listens at."""
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """What peers are given. A host of 0.0.0.0 has to be replaced by the machine's own name or address."""
        return f"{'https' if self._config.certificate else 'http'}://{self._config.host}:{self.port}/"

    def stats(self) -> core.RelayStats:
        return self._core.stats()

    async def close(self) -> None:
        """Tell the clients, flush for a moment, close. Twice is harmless."""
        if self._is_closing or self._server is None:
            return
        self._is_closing = True
        self._act(self._core.closing(0, 0))
        for queue in self._queues.values():
            queue.put_nowait(None)
        if self._writers:
            await asyncio.wait(self._writers, timeout=CLOSE_S)
        self._server.close(code=1012, reason="restarting")
        await self._server.wait_closed()

    # ---- before the WebSocket

    def _connection(self, *arguments: Any, **options: Any) -> Knock:
        return Knock(self._knocks, self._config.limits, *arguments, **options)

    def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        path = request.path.split("?")[0]
        if path == "/relay":
            return self._refusal(socket, request)
        if path == "/generate_204":
            challenge = request.headers.get("X-Iroh-Challenge", "")[:64]
            reply = f"response {challenge}" if challenge.isascii() and challenge.isprintable() else "response"
            return _reply(http.HTTPStatus.NO_CONTENT, b"", {"X-Iroh-Response": reply})
        if path in ("/ping", "/healthz"):
            return _reply(http.HTTPStatus.OK, b"ok\n", {"Access-Control-Allow-Origin": "*"})
        return _reply(http.HTTPStatus.NOT_FOUND, b"this is a relay; see /relay\n")

    def _refusal(self, socket: ServerConnection, request: Request) -> Response | None:
        token = self._config.auth_token
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode()):
            self._core.refused("wrong token")
            return _reply(http.HTTPStatus.UNAUTHORIZED, b"this relay wants a token\n")
        is_full = sum(self._from.values()) >= self._config.limits.clients
        if is_full or self._is_closing or self._from[_host(socket)] >= self._config.limits.per_address:
            self._core.refused("full")
            return _reply(http.HTTPStatus.SERVICE_UNAVAILABLE, b"this relay is full\n")
        return None

    # ---- one session

    async def _session(self, socket: ServerConnection) -> None:
        host = _host(socket)
        self._from[host] += 1
        try:
            await self._serve(socket)
        except (ConnectionClosed, TimeoutError, PeerFault) as error:
            log.debug("relay: a session from %s ended: %s", host, error)
        finally:
            self._from[host] -= 1
            if not self._from[host]:
                del self._from[host]

    async def _serve(self, socket: ServerConnection) -> None:
        key = await self._authenticate(socket)
        if key is None:
            return
        session = next(self._numbers)
        self._queues[session] = asyncio.Queue()
        self._sockets[session] = socket
        self._act(self._core.joined(session, key, socket.subprotocol == frames.VERSIONS[0], self._clock.monotonic()))
        writing = asyncio.create_task(self._write(session, socket))
        self._writers.add(writing)
        writing.add_done_callback(self._writers.discard)
        try:
            await self._read(session, socket)
        finally:
            self._act(self._core.left(session))
            del self._queues[session], self._sockets[session]
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _authenticate(self, socket: ServerConnection) -> bytes | None:
        """The proven key; None, counted, for whoever has none or may not come."""
        nonce = secrets.token_bytes(frames.CHALLENGE_BYTES)
        try:
            async with asyncio.timeout(self._config.limits.handshake_s):
                await socket.send(frames.challenge_of(nonce))
                key = frames.parse_auth(await socket.recv(), nonce)
        except (PeerFault, TimeoutError, ConnectionClosed) as error:
            self._core.refused("no proof of a key")
            if not isinstance(error, ConnectionClosed):
                await socket.send(frames.denies("no proof of a key"))
            return None
        if self._config.allow is not None and PeerId(key) not in self._config.allow:
            self._core.refused("not on the list")
            await socket.send(frames.denies("this relay serves a list of peers; this key is not on it"))
            return None
        await socket.send(frames.CONFIRMS)
        return key

    async def _read(self, session: int, socket: ServerConnection) -> None:
        idle_s = self._config.limits.idle_s
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(idle_s) as limit:
            while True:
                data = await socket.recv()
                self._act(self._core.received(session, frames.parse(data), self._clock.monotonic()))
                if pause_s := self._core.pause_s(session):
                    await asyncio.sleep(pause_s)
                if (limit.when() or 0.0) < loop.time() + idle_s - 1.0:  # moved once a second, not for every frame
                    limit.reschedule(loop.time() + idle_s)

    async def _write(self, session: int, socket: ServerConnection) -> None:
        queue = self._queues[session]
        while (data := await queue.get()) is not None:
            try:
                await socket.send(data)
            except ConnectionClosed:
                return
            self._core.sent(session, len(data))

    def _act(self, actions: list[core.Action]) -> None:
        for action in actions:
            match action:
                case core.Send(to, data):
                    self._queues[to].put_nowait(data)
                case core.Close(session, reason):
                    self._queues[session].put_nowait(None)
                    task = asyncio.get_running_loop().create_task(self._sockets[session].close(1000, reason))
                    self._closing.add(task)
                    task.add_done_callback(self._closing.discard)


async def serve_relay(config: RelayConfig, stop: asyncio.Event) -> core.RelayStats:
    """Run a relay until `stop` is set; its counts."""
    relay = await RelayServer.start(config)
    try:
        await stop.wait()
    finally:
        await relay.close()
    return relay.stats()


def _host(socket: ServerConnection) -> str:
    return _site(socket.remote_address)


def _site(name: Any) -> str:
    """Who is counted as one: an IPv4 address, an IPv6 /64."""
    return of_socket(name).site if name else "?"


def _reply(status: http.HTTPStatus, body: bytes, extra: dict[str, str] | None = None) -> Response:
    headers = Headers({"Content-Length": str(len(body)), "Connection": "close", **(extra or {})})
    return Response(status.value, status.phrase, headers, body)
