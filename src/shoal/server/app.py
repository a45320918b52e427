"""`create_app`: the table of endpoints inside its middleware.

access (id, log, span, bugs) > host check > CORS > key check > routes > handler
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from shoal.core.clock import Clock, SystemClock
from shoal.core.service import Service
from shoal.server.access import Access
from shoal.server.auth import KeyCheck
from shoal.server.config import ServerConfig
from shoal.server.context import Context
from shoal.server.errors import Refused
from shoal.server.hosts import HostCheck
from shoal.server.metrics import Metrics
from shoal.server.openapi import document
from shoal.server.problems import Problems
from shoal.server.receipt_metrics import ReceiptCollector
from shoal.server.routes import OPERATIONS, Handler
from shoal.server.static import FOLDER, static_files
from shoal.server.store import ResponseStore
from shoal.server.tracing import NoTracing, OpenTelemetry


def create_app(
    service: Service,
    config: ServerConfig | None = None,
    clock: Clock | None = None,
    console: Path = FOLDER,
) -> ASGIApp:
    """The ASGI app. BadConfig where the configuration cannot work; nothing global is touched, so apps coexist."""
    config, clock = config or ServerConfig(), clock or SystemClock()
    metrics = Metrics(service.stats, service.mesh)
    if service.receipts is not None:
        metrics.registry.register(ReceiptCollector(service.receipts.stats))
    store = ResponseStore(config.max_stored_responses, config.max_stored_bytes)
    context = Context(service, config, metrics, store, clock)
    app: ASGIApp = KeyCheck(Router(_routes(context, console), redirect_slashes=False), config.api_keys)
    app = Problems(HostCheck(app, config))
    if config.cors_origins:
        app = _cors(app, config.cors_origins)
    return Access(app, config, metrics, clock, OpenTelemetry() if config.otel else NoTracing())


def _cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    methods, headers = ("GET", "POST", "DELETE"), ("*",)
    exposed = ("x-request-id", "retry-after")
    return CORSMiddleware(app, origins, methods, headers, expose_headers=exposed)


def _routes(context: Context, console: Path) -> list[Route]:
    routes = [
        Route(item.path, _Endpoint(context, item.handler, item.path), methods=[item.method]) for item in OPERATIONS
    ]
    if context.config.docs:
        content = json.dumps(document(OPERATIONS)).encode()
        routes.append(Route("/openapi.json", _Bytes(content), methods=["GET"]))
    routes += [Route(path, file, methods=["GET"]) for path, file in static_files(console).items()]
    return routes


@dataclass(frozen=True, slots=True)
class _Endpoint:
    context: Context
    handler: Handler
    path: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["shoal.handler"] = self.path
        _refuse_query(scope)
        response = await self.handler(self.context, HttpRequest(scope, receive))
        await response(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Bytes:
    content: bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(self.content, media_type="application/json")(scope, receive, send)


def _refuse_query(scope: Scope) -> None:
    """No endpoint has query parameters, so each would be ignored."""
    if scope["query_string"]:
        name = scope["query_string"].decode("latin-1").partition("=")[0][:64]
        raise Refused(400, "unknown_parameter", f"unknown query parameter: {name!r}", name)
