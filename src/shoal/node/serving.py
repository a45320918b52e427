"""Runs an ASGI application on a socket until a signal, then lets running answers end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from typing import Any

import uvicorn

from shoal.core.errors import LocalError, Unsupported
from shoal.node.config import NodeConfig
from shoal.node.machine import bind
from shoal.server.config import ServerConfig

DRAIN_S = 30
"""How long running answers may take after the first signal. A second signal ends them at once."""


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; LocalError that says what to do when the address is taken."""
    try:
        return bind(host, port)
    except OSError as error:
        raise LocalError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --port or SHOAL_PORT "
            "(0: any free one)"
        ) from error


def address(bound: socket.socket) -> str:
    """The URL a person can open: a wildcard address is reached as localhost."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


def server_config(config: NodeConfig) -> ServerConfig:
    """The part of the configuration that is the server's."""
    return ServerConfig(
        api_keys=config.api_keys,
        cors_origins=config.cors_origins,
        allowed_hosts=config.allowed_hosts,
        max_body_bytes=config.max_body,
        request_timeout_s=config.request_timeout,
        adapter_loading=config.adapter_loading,
        log_format=config.log_format,
        otel=config.otel,
    )


def log_to_stderr() -> None:
    """Shoal's own loggers as bare lines (they are whole as they are); of everybody else only warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("shoal").setLevel(logging.INFO)


def trace() -> None:
    """Send spans where OTEL_EXPORTER_OTLP_* says if that exporter is installed, else to stderr as JSON."""
    try:
        from opentelemetry import trace as api
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    except ImportError:
        raise Unsupported("otel is set, but its library is missing: pip install 'shoal[otel]'") from None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    except ImportError:
        exporter = ConsoleSpanExporter(out=sys.stderr)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    api.set_tracer_provider(provider)


async def serve(app: Any, bound: socket.socket) -> signal.Signals | None:
    """Serve until SIGINT or SIGTERM and return which it was, or None if the application stopped by itself."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=DRAIN_S, server_header=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]  # ours are below
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        server.force_exit = bool(received)
        server.should_exit = True
        received.append(number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await server.serve(sockets=[bound])
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return received[0] if received else None
