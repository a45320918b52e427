"""The peers this node knows: GET /v1/mesh shows them, POST /v1/mesh/ping asks one."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from shoal.core.service import MeshView
from shoal.server import parse
from shoal.server.context import Context
from shoal.server.wire.misc import PingRequest


async def show(context: Context, http: HttpRequest) -> ASGIApp:
    """A node that asks nobody else has no id here and no peers."""
    return JSONResponse(asdict(context.service.mesh() or MeshView("", "private")))


async def ping(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, PingRequest, context.config)
    return JSONResponse(asdict(await context.service.ping(body.peer)))
