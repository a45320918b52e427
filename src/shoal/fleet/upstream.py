"""An OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, OpenAI) as a `Generate`.

Redirects are not followed: the key and the prompt go where the configuration says. What the server sends is read within
bounds, compressed bytes are not asked for, and its words are shown without control characters and without our key.

What this does not protect against: the server sees every prompt sent to it, and its text is taken as it comes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import (
    InvalidRequest,
    LinkClosed,
    LocalError,
    ModelNotFound,
    Overloaded,
    PeerFault,
    ShoalError,
    Unavailable,
    Unreachable,
)
from shoal.core.request import Request
from shoal.core.text import is_plain, plain
from shoal.fleet.upstream_wire import Events, Flavour, body

CONNECT_S = 10.0
LIST_S = 30.0
SILENCE_S = 120.0
"""Between two events; such servers send none while they think about a long prompt."""
MAX_EVENT_BYTES = 4 * 2**20
MAX_LIST_BYTES = 4 * 2**20
MAX_ERROR_BYTES = 16 * 2**10
MAX_MODELS = 10_000
STALL_S = 900.0
"""With nothing but comments for so long it will not answer."""


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """`url` without /v1. Its models are asked for under the names it lists."""

    name: str
    url: str
    flavour: Flavour = "openai"
    api_key: str | None = None
    price_usd_per_mtok: float = 0.0


class Upstream:
    """One server. `client` is shared by its requests and closed by whoever made it."""

    def __init__(self, config: UpstreamConfig, client: httpx.AsyncClient, clock: Clock) -> None:
        self.config = config
        self._client = client
        self._clock = clock
        self._headers = {"Accept-Encoding": "identity"}
        if config.api_key is not None:
            self._headers["Authorization"] = f"Bearer {config.api_key}"

    async def models(self) -> tuple[str, ...]:
        """The names it lists. Raises as `generate` does."""
        try:
            async with (
                asyncio.timeout(LIST_S),
                self._client.stream(
                    "GET", f"{self.config.url}/v1/models", headers=self._headers, timeout=CONNECT_S
                ) as response,
            ):
                await self._check_status(response)
                listed = json.loads(await _whole(response, MAX_LIST_BYTES))["data"]
            names = tuple(str(item["id"]) for item in listed[:MAX_MODELS])
            return tuple(name for name in names if 0 < len(name) <= 200 and is_plain(name))
        except TimeoutError as error:
            raise Unreachable(f"cannot reach {self.config.name}", (f"no list of models in {LIST_S:g} s",)) from error
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PeerFault(f"{self.config.name}: expected a list of models, found something else") from error

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """See `core.seams`. Unreachable, Unavailable, Overloaded, LinkClosed: try elsewhere."""
        path, fields = body(request, request.adapter or request.model, self.config.flavour)
        left = None if request.deadline is None else max(0.001, request.deadline - self._clock.monotonic())
        timeout = httpx.Timeout(min(SILENCE_S, left or SILENCE_S), connect=CONNECT_S)
        events = Events(0 if request.resume is None else request.resume.choice)
        begun = False
        try:
            async with self._client.stream(
                "POST", self.config.url + path, json=fields, headers=self._headers, timeout=timeout
            ) as response:
                await self._check_status(response)
                begun = True
                async for event in self._events(response):
                    for chunk in events.push(event):
                        yield chunk
            for chunk in events.end():
                yield chunk
        except httpx.HTTPError as error:
            if begun:
                raise LinkClosed(f"{self.config.name} broke off: {_words(error)}") from error
            raise self._unreachable(error) from error

    async def _events(self, response: httpx.Response) -> AsyncIterator[str]:
        """Data of each server-sent event up to [DONE]. LinkClosed where the stream ends before it."""
        heard = self._clock.monotonic()
        async for line in _lines(response):
            now = self._clock.monotonic()
            if not line.startswith("data:"):
                if now - heard > STALL_S:
                    raise LinkClosed(f"the upstream server said nothing of an answer for {STALL_S:.0f} s")
                continue
            heard, data = now, line[5:].strip()
            if data == "[DONE]":
                return
            if data.startswith('{"error"'):
                raise LocalError(f"the upstream server failed: {self._shown(data)}")
            yield data
        raise LinkClosed("the upstream server broke off in the middle of an answer")

    async def _check_status(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        try:
            async with asyncio.timeout(LIST_S):
                text = (await _whole(response, MAX_ERROR_BYTES)).decode("utf-8", "replace")
        except (PeerFault, TimeoutError):
            text = ""
        raise _error(response.status_code, self._shown(_message(text)), response.headers.get("retry-after"))

    def _shown(self, text: str) -> str:
        """For people: short, printable, without our key where the server repeats it."""
        key = self.config.api_key
        return plain((text.replace(key, "***") if key else text)[:500])

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        return Unreachable(f"cannot reach {self.config.name}", (f"{self.config.url}: {_words(error)}",))


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """PeerFault for one above MAX_EVENT_BYTES, before more of it is kept."""
    kept = bytearray()
    async for data in response.aiter_raw():
        kept += data
        *whole, rest = kept.split(b"\n")
        kept = bytearray(rest)
        if max(map(len, (kept, *whole))) > MAX_EVENT_BYTES:
            raise PeerFault(f"expected events of at most {MAX_EVENT_BYTES} bytes")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")


async def _whole(response: httpx.Response, limit: int) -> bytes:
    """The body. PeerFault above `limit` bytes."""
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) > limit:
            raise PeerFault(f"expected at most {limit} bytes, found more")
    return bytes(data)


def _error(status: int, text: str, retry_after: str | None) -> ShoalError:
    if status == 404:
        return ModelNotFound(text)
    if status in (400, 413, 422):
        return InvalidRequest(f"the upstream server refuses this: {text}")
    if status == 429:
        return Overloaded(f"the upstream server is busy: {text}", _seconds(retry_after))
    if status in (401, 403):
        return LocalError(f"the upstream server refuses our key: {text}")
    return Unavailable(f"the upstream server answered {status}: {text}")


def _seconds(text: str | None) -> float:
    return min(3600.0, float(text)) if text is not None and text.isdecimal() and len(text) < 20 else 1.0


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])[:2000]
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:2000]


def _words(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
