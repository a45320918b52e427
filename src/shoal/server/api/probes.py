"""Is it alive, is it ready, what is it doing: /healthz, /readyz, /metrics, /v1/stats."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from shoal.core.errors import Unavailable
from shoal.server.api.reply import json_response
from shoal.server.context import Context
from shoal.server.metrics import CONTENT_TYPE
from shoal.server.wire.misc import Health


async def healthz(context: Context, http: HttpRequest) -> ASGIApp:
    return json_response(Health(status="ok"))


async def readyz(context: Context, http: HttpRequest) -> ASGIApp:
    if (reason := context.service.not_ready()) is not None:
        raise Unavailable(reason)
    return json_response(Health(status="ready"))


async def metrics(context: Context, http: HttpRequest) -> ASGIApp:
    return Response(context.metrics.exposition(), headers={"content-type": CONTENT_TYPE})


async def stats(context: Context, http: HttpRequest) -> ASGIApp:
    return JSONResponse(asdict(context.service.stats()))
