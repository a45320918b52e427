"""A socket around an app: `listen`, then `serve` until it is told to stop, then drain.

Stopping: no new connection is accepted; running requests have `drain_s` to end and are then cancelled, which closes
their iterators; only after that does `serve` return. A second signal cancels at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from shoal.core.errors import BadConfig
from shoal.server.http_limits import LimitedHttp

BACKLOG = 2048
"""uvicorn's: connections the kernel holds for us before we accept them."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`handles_signals`: SIGINT and SIGTERM stop the server; `serve` returns instead of dying of them."""

    drain_s: float = 30.0
    keepalive_s: float = 30.0
    handles_signals: bool = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. BadConfig says what is wrong with the address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise BadConfig("host", f"expected an address of this machine, found {host!r}: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BadConfig("port", f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
    listener.setblocking(False)
    return listener


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    options: ServeOptions = ServeOptions(),
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves `app` on `listener` until a signal comes or `stop` is set, then drains. `on_ready` is told the address."""
    server = _Server(app, options)
    stopper = asyncio.create_task(_stop_when(stop, server)) if stop is not None else None
    try:
        with _signals(server) if options.handles_signals else nullcontext():
            if on_ready is not None:
                on_ready(address_of(listener))
            await server.serve(sockets=[listener])
    finally:
        await server.undo()
        listener.close()
        if stopper is not None:
            stopper.cancel()


def address_of(listener: socket.socket) -> str:
    """http://host:port as a browser on this machine wants it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not bound)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would raise the signal again after the drain and kill the process."""

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedHttp,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=max(1, round(options.keepalive_s)),
                timeout_graceful_shutdown=math.ceil(options.drain_s),
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def undo(self) -> None:
        """Cancels what the drain left and waits for it, also where `serve` itself was cancelled."""
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stop_when(stop: asyncio.Event, server: _Server) -> None:
    await stop.wait()
    server.should_exit = True


@contextmanager
def _signals(server: _Server) -> Iterator[None]:
    """Only the main thread can listen to signals; elsewhere `stop` is the way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    kinds = (signal.SIGINT, signal.SIGTERM)
    for kind in kinds:
        loop.add_signal_handler(kind, on_signal)
    try:
        yield
    finally:
        for kind in kinds:
            loop.remove_signal_handler(kind)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Bare lines of the loggers "shoal.access" and "shoal.server" on stderr, for a process that is a server."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("shoal")
    logger.addHandler(handler)
    logger.setLevel(level)
