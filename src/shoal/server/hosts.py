"""Who may talk to a server without keys: people on this machine, not the web pages they visit.

A hostile page can make a browser send requests to 127.0.0.1, and with DNS rebinding even under the page's own name. So:
- the Host must be an IP address, localhost, or a name from `allowed_hosts` (rebinding needs a name);
- an Origin, where there is one, must be the server's own or one from `cors_origins`.

What this does not protect against: other programs and users of the same network or machine. That takes API keys, and
where there are keys this check is off, because a page without one gets 401.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shoal.server.config import ServerConfig
from shoal.server.errors import Refused


class HostCheck:
    """ASGI middleware. Raises Refused (403)."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._config.api_keys:
            check(Headers(scope=scope), self._config)
        await self._app(scope, receive, send)


def check(headers: Headers, config: ServerConfig) -> None:
    hosts = headers.getlist("host")
    if len(hosts) > 1 or (hosts and not is_allowed_host(hosts[0], config.allowed_hosts)):
        message = f"this server does not answer to the name {hosts[0][:128]!r}; its owner can allow it (allowed_hosts)"
        raise Refused(403, "host_not_allowed", message)
    origin = headers.get("origin")
    if origin is None or "*" in config.cors_origins or origin in config.cors_origins:
        return
    if origin == "null" or netloc_of(origin) != (hosts[0].lower() if hosts else ""):
        message = f"pages of {origin[:128]!r} may not call this server; its owner can allow it (cors_origins)"
        raise Refused(403, "origin_not_allowed", message)


def is_allowed_host(host: str, allowed: tuple[str, ...]) -> bool:
    """`host` as in the Host header: a name or address, perhaps with a port."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if "*" in allowed or name == "localhost" or name.endswith(".localhost"):
        return True
    return name in [item.lower() for item in allowed] or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def netloc_of(origin: str) -> str | None:
    """Host and port of an origin, None for what is none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
