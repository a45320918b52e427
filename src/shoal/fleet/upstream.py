"""An OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, OpenAI) as a `Generate`.

What this does not protect against: the server sees every prompt sent to it, and its answers are taken as they come.
"""

from __future__ import annotations

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
from shoal.fleet.upstream_wire import Events, Flavour, body

CONNECT_S = 10.0
SILENCE_S = 120.0
"""Between two events; such servers send none while they think about a long prompt."""
MAX_EVENT_BYTES = 4 * 2**20


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
        self._headers = {} if config.api_key is None else {"Authorization": f"Bearer {config.api_key}"}

    async def models(self) -> tuple[str, ...]:
        """The names it lists. Raises as `generate` does."""
        try:
            response = await self._client.get(f"{self.config.url}/v1/models", headers=self._headers, timeout=CONNECT_S)
            await _check_status(response)
            return tuple(str(item["id"]) for item in response.json()["data"])
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, KeyError, TypeError) as error:
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
                await _check_status(response)
                begun = True
                async for event in _events(response):
                    for chunk in events.push(event):
                        yield chunk
            for chunk in events.end():
                yield chunk
        except httpx.HTTPError as error:
            if begun:
                raise LinkClosed(f"{self.config.name} broke off: {_words(error)}") from error
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        return Unreachable(f"cannot reach {self.config.name}", (f"{self.config.url}: {_words(error)}",))


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """Data of each server-sent event up to [DONE]. LinkClosed where the stream ends before it."""
    async for line in response.aiter_lines():
        if len(line) > MAX_EVENT_BYTES:
            raise PeerFault(f"expected events of at most {MAX_EVENT_BYTES} bytes")
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        if data.startswith('{"error"'):
            raise LocalError(f"the upstream server failed: {data[:500]}")
        yield data
    raise LinkClosed("the upstream server broke off in the middle of an answer")


async def _check_status(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    text = (await response.aread())[:2000].decode("utf-8", "replace")
    raise _error(response.status_code, _message(text), response.headers.get("retry-after"))


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
    return float(text) if text is not None and text.isdigit() else 1.0


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return text[:500]


def _words(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
