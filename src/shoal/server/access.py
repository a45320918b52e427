"""Around everything: a request id in and out, one log line and one span per request.

Rules that stay true in this file:
- every request gets exactly one line, also when it fails, is refused or its client goes away (status 499);
- a line never holds a prompt or an answer, and nothing a client sends can begin a new line.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoal.core.clock import Clock
from shoal.server.config import ServerConfig
from shoal.server.context import Record, fresh_id, given_id, has_good_id
from shoal.server.errors import ClientGone
from shoal.server.metrics import Metrics
from shoal.server.tracing import Tracing

CLIENT_GONE = 499
"""nginx's status for a client that went away; only ever in logs and metrics."""

_log = logging.getLogger("shoal.access")


class Access:
    """ASGI middleware; outermost."""

    def __init__(self, app: ASGIApp, config: ServerConfig, metrics: Metrics, clock: Clock, tracing: Tracing) -> None:
        self._app = app
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = (given_id(headers) if has_good_id(headers) else None) or fresh_id("req_")
        record = Record(request_id, scope["method"], scope["path"], self._clock.monotonic())
        scope["shoal.record"] = record
        try:
            with self._tracing.span(record, scope):
                await self._answer(record, scope, receive, send)
        finally:
            self._finish(record, scope)

    async def _answer(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            record.status, record.error = CLIENT_GONE, "client_gone"

    def _finish(self, record: Record, scope: Scope) -> None:
        handler = scope.get("shoal.handler", "none")
        method = record.method if record.method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        self._metrics.http.labels(method, handler, str(record.status or 500)).inc()
        if self._config.log_format != "off" and _log.isEnabledFor(logging.INFO):
            fields = fields_of(record, self._clock)
            _log.info("%s", as_json(fields) if self._config.log_format == "json" else as_text(fields))


def fields_of(record: Record, clock: Clock) -> dict[str, Any]:
    """The line's fields; what is not known is left out."""
    fields = {
        "time": round(clock.wall(), 3),
        "id": record.request_id,
        "method": record.method,
        "path": record.path[:256],
        "status": record.status or 500,
        "duration_s": round(clock.monotonic() - record.started, 6),
        "model": record.model,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "ttft_s": None if record.ttft_s is None else round(record.ttft_s, 6),
        "finish_reasons": record.finish_reasons or None,
        "error": record.error,
        "user": record.user,
        "metadata": record.metadata,
    }
    return {name: value for name, value in fields.items() if value is not None}


def as_json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def as_text(fields: dict[str, Any]) -> str:
    first = (
        f"{fields['method']} {json.dumps(fields['path'])[1:-1]} {fields['status']} {fields['duration_s'] * 1e3:.1f} ms"
    )
    rest = {
        name: value for name, value in fields.items() if name not in ("time", "method", "path", "status", "duration_s")
    }
    return " ".join([first, *(f"{name}={json.dumps(value)}" for name, value in rest.items())])
