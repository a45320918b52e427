"""A server with a scripted `Generate` behind it: in memory (`ask`) or on a real loopback socket (`start`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import pytest

from shoal.core.errors import ModelNotFound
from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.request import Message
from shoal.core.seams import Generate
from shoal.core.service import EngineStats, ModelCard, Service
from shoal.server import ServeOptions, ServerConfig, create_app, listen, serve
from shoal.server.serve import address_of

BASE = ModelCard("tiny", 1_700_000_000, context_length=64, capabilities=("completion", "chat", "tools", "embedding"))
ADAPTER = ModelCard("tiny-pirate", parent="tiny", capabilities=("completion", "chat"))
CODES = "abcdefghijklmnopqrstuvwxyz "


async def tokenize(model: str, text: str | tuple[Message, ...], special: bool) -> list[int]:
    plain = text if isinstance(text, str) else "".join(message.content for message in text)
    return [0] * special + [CODES.find(letter) + 2 for letter in plain]


async def detokenize(model: str, tokens: Sequence[int]) -> str:
    return "".join(CODES[token - 1 - 1] if 1 < token < len(CODES) + 2 else "?" for token in tokens)


async def embed(model: str, inputs: Sequence[str | tuple[int, ...]]) -> tuple[np.ndarray, int]:
    rows = np.stack([np.random.default_rng(len(item)).standard_normal(8) for item in inputs])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), sum(map(len, inputs))


def service_of(generate: Generate) -> Service:
    cards = [BASE, ADAPTER]

    async def load(name: str, path: str) -> ModelCard:
        cards.append(ModelCard(name, parent="tiny"))
        return cards[-1]

    async def unload(name: str) -> None:
        if name not in [card.id for card in cards]:
            raise ModelNotFound(name)
        cards[:] = [card for card in cards if card.id != name]

    stats = EngineStats(num_running=2, num_waiting=1, blocks_total=8, blocks_used=2, prompt_tokens_total=30)
    return Service(
        generate, lambda: tuple(cards), lambda: stats, lambda: None, tokenize, detokenize, embed, load, unload
    )


@pytest.fixture
def make_service() -> Callable[..., Service]:
    def make(generate: Generate | None = None, **changes: Any) -> Service:
        return replace(service_of(generate or ScriptedGenerate(words("Hel", "lo"))), **changes)

    return make


@pytest.fixture
def ask(make_service: Callable[..., Service]) -> Callable[..., httpx.Response]:
    """One request to an app in memory; `json` is the body, other keywords are httpx's."""

    def send(
        method: str, path: str, app: Any = None, config: ServerConfig | None = None, **request: Any
    ) -> httpx.Response:
        async def go() -> httpx.Response:
            served = app or create_app(make_service(), config)
            transport = httpx.ASGITransport(served, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **request)

        return asyncio.run(go())

    return send


@dataclass(slots=True)
class Running:
    """A server in a thread of its own; `url` ends without a slash."""

    url: str
    stop: Callable[[], None]


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Running]]:
    """Starts servers that live until the tests end."""
    running: list[Running] = []

    def go(generate: Generate | None = None, config: ServerConfig | None = None) -> Running:
        app = create_app(service_of(generate or ScriptedGenerate(words("Hel", "lo"))), config)
        running.append(run_in_thread(app))
        return running[-1]

    yield go
    for server in running:
        server.stop()


def run_in_thread(app: Any) -> Running:
    listener = listen("127.0.0.1", 0)
    url = address_of(listener)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    work = serve(app, listener, ServeOptions(drain_s=1, handles_signals=False), stop)
    thread = threading.Thread(target=loop.run_until_complete, args=[work])
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()

    return Running(url, end)
