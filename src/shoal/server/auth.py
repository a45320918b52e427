"""API keys: `Authorization: Bearer <key>` on everything under /v1 and on /metrics, if any key is configured.

The page at `/`, /healthz, /readyz and /openapi.json say nothing that needs one. Comparison takes the same time for
every key and every guess: digests are compared, all of them, whichever matches.

What this does not protect against: keys read off an unencrypted network. Put TLS in front, or bind to loopback.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shoal.core.errors import Unauthorized


class KeyCheck:
    """ASGI middleware. Raises Unauthorized."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._digests = tuple(_digest(key.encode()) for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and _needs_key(scope["path"]):
            scope["shoal.record"].owner = self._owner(Headers(scope=scope).getlist("authorization"))
        await self._app(scope, receive, send)

    def _owner(self, given: list[str]) -> bytes:
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized("this server needs an API key: send the header `Authorization: Bearer <key>`")
        guess, is_known = _digest(key.strip().encode("latin-1")), False
        for digest in self._digests:
            is_known |= hmac.compare_digest(guess, digest)
        if not is_known:
            raise Unauthorized("this API key is not one of this server's")
        return guess


def _needs_key(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/") or path == "/metrics"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
