"""The console: files of one folder, read once, each with its own route. There is no path to traverse."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

FOLDER = Path(__file__).parent / "console"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""Other files are not served."""

HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # asks again each time, and gets 304
}

NO_CONSOLE = b"<!doctype html><html lang=en><title>Shoal</title><p>Shoal is running; this build has no console."


@dataclass(frozen=True, slots=True)
class StaticFile:
    """ASGI app for one file."""

    content: bytes
    media_type: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        headers = HEADERS | {"etag": tag}
        if Headers(scope=scope).get("if-none-match") == tag:
            response = Response(status_code=304, headers=headers)
        else:
            response = Response(self.content, headers=headers | {"content-type": self.media_type})
        await response(scope, receive, send)


def static_files(folder: Path = FOLDER) -> dict[str, StaticFile]:
    """URL path -> file. `/` is index.html, or a sentence where there is none."""
    files = {
        f"/{path.relative_to(folder).as_posix()}": StaticFile(path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in MEDIA_TYPES and path.is_file() and not path.name.startswith(".")
    }
    index = files.get("/index.html", StaticFile(NO_CONSOLE, MEDIA_TYPES[".html"]))
    return {"/": index} | files
