"""Connecting: one endpoint to the proof of both keys, and several endpoints in a race (RFC 8305, "happy eyeballs")."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shoal.core.clock import Clock
from shoal.core.errors import InvalidRequest, PeerFault, ShoalError, Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.peer_id import PeerId
from shoal.mesh.tcp.certificate import peer_of
from shoal.mesh.tcp.endpoint import Endpoint
from shoal.mesh.tcp.hello import SERVER_HELLO_BYTES, VERDICT_BYTES, client_hello, parse_server_hello
from shoal.mesh.tcp.wire import Wire

STAGGER_S = 0.25
"""Between the starts of two tries (RFC 8305 section 5)."""
_WORDS = {
    errno.ECONNREFUSED: "refused: nothing listens there; is the node running, and is this its port?",
    errno.ENETUNREACH: "no route: this machine has no network of that kind (IPv6?)",
    errno.EHOSTUNREACH: "host unreachable: it is off, or on another LAN",
    errno.ECONNRESET: "the other side broke off in the handshake: too many connections from here, or not Shoal",
}


@dataclass(frozen=True, slots=True)
class Dialer:
    key: PrivateKey
    context: ssl.SSLContext

    async def connect(self, endpoint: Endpoint, wanted: PeerId) -> Wire:
        """A connection to `wanted`, both keys proven. OSError or ShoalError says what went wrong."""
        raw = socket.socket(socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, (str(endpoint.ip), endpoint.port))
            wire = Wire(raw, self.context, is_server=False)
        except BaseException:
            raw.close()
            raise
        try:
            await self._prove(wire, wanted)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _prove(self, wire: Wire, wanted: PeerId) -> None:
        await wire.handshake()
        found = peer_of(wire.tls.getpeercert(binary_form=True))
        if found != wanted:
            raise PeerFault(f"answered by another peer, {found.short}; expected {wanted.short}")
        hello = parse_server_hello(await wire.read_exactly(SERVER_HELLO_BYTES))
        await wire.write_all(client_hello(self.key, wanted, hello))
        status, size = await wire.read_exactly(VERDICT_BYTES)
        reason = (await wire.read_exactly(size)).decode(errors="replace")
        if status != 0:
            raise PeerFault(f"the other side declined: {reason or 'no reason given'}")


async def race(
    hints: Sequence[str], connect: Callable[[Endpoint], Awaitable[Wire]], timeout_s: float, clock: Clock
) -> tuple[Endpoint, Wire]:
    """The first endpoint that works. Unreachable lists all of them; of the losers nothing is left."""
    steps: dict[str, str] = dict.fromkeys(hints, f"no answer within {timeout_s:g} s: host down, or a firewall drops it")
    running: dict[asyncio.Task[Wire], Endpoint] = {}
    winner: asyncio.Task[Wire] | None = None
    waiting = _parsed(hints, steps)
    deadline = clock.monotonic() + timeout_s
    try:
        while winner is None and (waiting or running) and (left_s := deadline - clock.monotonic()) > 0:
            if waiting:
                endpoint = waiting.pop(0)
                running[asyncio.ensure_future(_run(connect, endpoint))] = endpoint
            pause_s = min(STAGGER_S, left_s) if waiting else left_s
            done, _ = await asyncio.wait(running, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None and winner is None:
                    winner = task
                elif error is not None:
                    steps[str(running.pop(task))] = _explained(error)
        if winner is not None:
            return running.pop(winner), winner.result()
    finally:
        await _drop(task for task in running if task is not winner)
    raise Unreachable("no TCP connection", tuple(f"tcp {hint}: {step}" for hint, step in steps.items()))


async def _run(connect: Callable[[Endpoint], Awaitable[Wire]], endpoint: Endpoint) -> Wire:
    return await connect(endpoint)


def _parsed(hints: Sequence[str], steps: dict[str, str]) -> list[Endpoint]:
    endpoints = []
    for hint in hints:
        try:
            endpoints.append(Endpoint.parse(hint))
        except InvalidRequest as error:
            steps[hint] = str(error)
    return endpoints


async def _drop(tasks: object) -> None:
    """Cancel tries that lost, and close a connection that came too late."""
    for task in list(tasks):  # type: ignore[call-overload]
        task.cancel()
        for result in await asyncio.gather(task, return_exceptions=True):
            if isinstance(result, Wire):
                result.close()


def _explained(error: BaseException) -> str:
    if isinstance(error, ShoalError):
        return str(error)
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}; is that port Shoal's?"
    if isinstance(error, OSError):
        return _WORDS.get(error.errno or 0) or str(error)
    return f"{type(error).__name__}: {error}"
