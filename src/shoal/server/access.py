"""Around everything: a request id in and out, one log line per request, and the last resort against bugs.

Rules that stay true in this file:
- every request gets exactly one line, also when it fails, is refused or its client goes away (status 499);
- a line never holds a prompt or an answer, and nothing a client sends can begin a new line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoal.core.clock import Clock
from shoal.core.errors import Unavailable
from shoal.server.api.reply import log_bug
from shoal.server.config import ServerConfig
from shoal.server.context import Record, fresh_id
from shoal.server.errors import ClientGone, Refused, body_of, response_of
from shoal.server.metrics import Metrics
from shoal.server.tracing import Tracing

CLIENT_GONE = 499
"""nginx's status for a client that went away; only ever in logs and metrics."""

REQUEST_ID = re.compile(r"[!#-\[\]-~]{1,128}")
"""Visible ASCII without quote and backslash: safe in headers and logs, wide enough for proxies' own ids."""

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
        record = Record(fresh_id("req_"), scope["method"], scope["path"], self._clock.monotonic())
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
            record.request_id = _given_id(scope) or record.request_id
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            record.status, record.error = CLIENT_GONE, "client_gone"
        except asyncio.CancelledError:  # the server stops and waits no longer: the end of this task in any case
            record.error = "server_stopped"
            if record.status is None:
                await response_of(Unavailable("this server was stopped"))(scope, receive, send_with_id)
        except Exception as error:
            log_bug(error)
            record.error = body_of(error)["error"]["code"]
            if record.status is not None:  # the status is out; all that can be done is to break off
                raise
            await response_of(error)(scope, receive, send_with_id)

    def _finish(self, record: Record, scope: Scope) -> None:
        handler = scope.get("shoal.handler", "none")
        method = record.method if record.method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        self._metrics.http.labels(method, handler, str(record.status or 500)).inc()
        if self._config.log_format != "off" and _log.isEnabledFor(logging.INFO):
            fields = fields_of(record, self._clock)
            _log.info("%s", as_json(fields) if self._config.log_format == "json" else as_text(fields))


def _given_id(scope: Scope) -> str | None:
    given = Headers(scope=scope).get("x-request-id")
    if given is not None and not REQUEST_ID.fullmatch(given):
        raise Refused(400, "invalid_value", "x-request-id: expected up to 128 visible ASCII characters", "x-request-id")
    return given


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
