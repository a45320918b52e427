"""A `Generate` whose answers come from an OpenAI-compatible server over HTTP, with nothing but the standard library.

Threads do the blocking reads. Closing the iterator closes the socket, and the server then cancels the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from shoal.core.chunk import Chunk, Usage
from shoal.core.errors import BadConfig, InvalidRequest, LocalError, RemoteError, Unauthorized, Unsupported
from shoal.core.request import Request, Sampling
from shoal.core.seams import Generate

CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 600.0
"""Longest silence accepted: a slow machine reading a long prompt says nothing for minutes."""

_SENT = ("temperature", "top_p", "seed", "stop", "max_tokens", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True, slots=True)
class Server:
    """`url` as printed by `shoal up`, with or without /v1."""

    url: str
    key: str | None = None


def remote_generate(server: Server) -> Generate:
    """Answers of `server`. A request it cannot be asked for raises Unsupported naming the field."""

    async def generate(request: Request) -> AsyncIterator[Chunk]:
        body = _body(request)
        exchange = await _open(server, "POST", "/chat/completions", body)
        try:
            while event := await _next_event(exchange.response):
                for chunk in _chunks(event):
                    yield chunk
        finally:
            exchange.hang_up()

    return generate


async def first_model(server: Server) -> str:
    """The default model of `server`: the first one it lists."""
    exchange = await _open(server, "GET", "/models", None)
    try:
        listed = _json(await asyncio.to_thread(exchange.response.read))
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError) as error:
        raise RemoteError(f"{server.url} lists no models") from error
    finally:
        exchange.hang_up()


async def exchange_json(server: Server, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    """One request to the API, `path` behind /v1, and the object it answers."""
    exchange = await _open(server, method, path, body)
    try:
        return _json(await asyncio.to_thread(exchange.response.read))
    finally:
        exchange.hang_up()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was sent, and the head of its answer. `link` is kept: http.client forgets it at once."""

    link: socket.socket
    response: HTTPResponse

    def hang_up(self) -> None:
        """Close for good, also under a thread that is reading."""
        _shut(self.link)
        self.response.close()


def _shut(link: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side may have been quicker
        link.shutdown(socket.SHUT_RDWR)


def _body(request: Request) -> dict[str, Any]:
    default, sampling = Sampling(), request.sampling
    for field in fields(Sampling):
        if field.name not in _SENT and getattr(sampling, field.name) != getattr(default, field.name):
            raise Unsupported(f"{field.name} cannot be asked of a server over --url")
    if isinstance(request.prompt, str) or not all(hasattr(message, "role") for message in request.prompt):
        raise Unsupported("a server over --url is asked with messages only")
    messages = [{"role": item.role, "content": item.content} for item in request.prompt]  # type: ignore[union-attr]
    options = {name: getattr(sampling, name) for name in _SENT if getattr(sampling, name) != getattr(default, name)}
    body = {"model": request.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    if request.constraint is not None:
        schema = {"name": "answer", "schema": json.loads(request.constraint.value), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**body, **options}


async def _open(server: Server, method: str, path: str, body: Mapping[str, Any] | None) -> Exchange:
    """Send one request and read the head of its answer; an error status becomes the error it stands for."""
    connection, prefix = _connection(server)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {server.key}"} if server.key else {})
    encoded = None if body is None else json.dumps(body).encode()
    try:
        await asyncio.to_thread(connection.connect)
        link = connection.sock
        link.settimeout(TIMEOUT_S)
        try:
            await asyncio.to_thread(connection.request, method, prefix + path, encoded, headers)
            response = await asyncio.to_thread(connection.getresponse)
            if response.status == 200:
                return Exchange(link, response)
            detail = await asyncio.to_thread(response.read, 1 << 16)
        except BaseException:  # cancelled: the thread that waits for the server must not outlive us
            _shut(link)
            raise
    except (OSError, HTTPException) as error:
        raise LocalError(f"no answer from {server.url}: {error}; is `shoal up` running there?") from error
    _shut(link)
    raise _error(server, response.status, detail)


def _connection(server: Server) -> tuple[HTTPConnection, str]:
    parts = urlsplit(server.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadConfig("--url", f"expected http://host:port or https://host:port, found {server.url!r}")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    prefix = parts.path.rstrip("/")
    return kind(parts.hostname, parts.port, timeout=CONNECT_TIMEOUT_S), prefix if prefix.endswith(
        "/v1"
    ) else prefix + "/v1"


def _error(server: Server, status: int, detail: bytes) -> Exception:
    try:
        message = str(json.loads(detail)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = detail[:200].decode(errors="replace") or "no reason given"
    if status in (401, 403):
        return Unauthorized(f"{server.url} refused the key: {message}")
    if status < 500 and status != 429:
        return InvalidRequest(f"{server.url} refused the request: {message}")
    return LocalError(f"{server.url} could not answer ({status}): {message}")


async def _next_event(response: HTTPResponse) -> dict[str, Any] | None:
    """The next `data:` of a server-sent event stream, or None after [DONE]."""
    while True:
        try:
            line = await asyncio.to_thread(response.readline)
        except (OSError, HTTPException) as error:
            raise RemoteError(f"the server broke off in the middle of its answer: {error}") from error
        if not line:
            raise RemoteError("the server broke off in the middle of its answer")
        if line.startswith(b"data:"):
            data = line[5:].strip()
            return None if data == b"[DONE]" else _json(data)


def _chunks(event: dict[str, Any]) -> list[Chunk]:
    if "error" in event:
        raise RemoteError(str(event["error"].get("message", event["error"])))
    usage = event.get("usage")
    chunks = [
        Chunk(choice["index"], choice["delta"].get("content") or "", finish_reason=choice.get("finish_reason"))
        for choice in event["choices"]
    ]
    if usage:
        chunks.append(Chunk(usage=Usage(usage["prompt_tokens"], usage["completion_tokens"])))
    return chunks


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RemoteError(f"expected a JSON object from the server, found {data[:80]!r}")
    return value
