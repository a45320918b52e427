"""Errors become responses here, inside CORS, so that a page from another origin can read them too."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from shoal.core.errors import Unavailable
from shoal.server.api.reply import log_bug
from shoal.server.context import Record, has_good_id
from shoal.server.errors import ClientGone, Refused, body_of, response_of


@dataclass(frozen=True, slots=True)
class Problems:
    """ASGI middleware. After the status is out an error can only break the connection off: it is raised on."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record: Record = scope["shoal.record"]
        try:
            await self._run(scope, receive, send)
        except ClientGone:
            raise
        except asyncio.CancelledError:  # the server was stopped and waits no longer: the end of this task in any case
            record.error = "server_stopped"
            if record.status is None:
                await response_of(Unavailable("this server was stopped"))(scope, receive, send)
        except Exception as error:
            log_bug(error)
            record.error = body_of(error)["error"]["code"]
            if record.status is not None:
                raise
            await response_of(error)(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_good_id(Headers(scope=scope)):
            message = "x-request-id: expected up to 128 visible ASCII characters"
            raise Refused(400, "invalid_value", message, "x-request-id")
        scope["app"] = self  # makes the router raise instead of answering in plain text
        try:
            await self.app(scope, receive, send)
        except HTTPException as error:
            where = f"{scope['method'][:16]} {scope['path'][:128]}"
            if error.status_code == 405:
                raise Refused(405, "method_not_allowed", f"{where}: not with this method") from None
            raise Refused(
                error.status_code, "not_found", f"{where}: there is nothing here; see /openapi.json"
            ) from None
