"""One boundary where errors become HTTP: class -> status, and OpenAI's `{"error": {message, type, param, code}}`.

The class decides, never the text. DeadlineExceeded is 504: the request was fine, the answer was late.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from shoal.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LinkClosed,
    ModelNotFound,
    Overloaded,
    RemoteError,
    ShoalError,
    Unauthorized,
    Unavailable,
    Unreachable,
    Unsupported,
)

UNAVAILABLE_RETRY_S = 2
"""Retry-After of a 503: loading the default model takes about this long."""


class Refused(RemoteError):
    """A request turned down by HTTP itself: its size, type, method, address or sender."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer. Never leaves this package."""


STATUSES: tuple[tuple[type[ShoalError], int], ...] = (
    (ModelNotFound, 404),
    (InvalidRequest, 400),
    (Unauthorized, 401),
    (Overloaded, 429),
    (Unavailable, 503),
    (DeadlineExceeded, 504),
    (Unsupported, 501),
    (Unreachable, 503),
    (LinkClosed, 502),  # another machine that this one relied on went away
    (RemoteError, 502),  # a peer, not this client, sent something it should not have
    (ShoalError, 500),
)
"""First match wins."""


def status_of(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def body_of(error: Exception) -> dict[str, Any]:
    """OpenAI's error object. What is not a ShoalError is a bug of ours: its text stays in the log."""
    status = status_of(error)
    if not isinstance(error, ShoalError):
        message, code = "internal error; the server's log has the cause under this x-request-id", "internal_error"
    else:
        message, code = str(error), error.code
    param = getattr(error, "param", None)
    return {"error": {"message": message, "type": _type(status), "param": param, "code": code}}


def response_of(error: Exception) -> JSONResponse:
    status = status_of(error)
    headers = {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(UNAVAILABLE_RETRY_S)
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    elif status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT):
        headers["connection"] = "close"  # the rest of the body is not wanted
    return JSONResponse(body_of(error), status, headers)


def _type(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
        case _ if status >= 500:
            return "server_error"
    return "invalid_request_error"
