"""A real server over a scripted service, and a real Chromium, for the tests of the console.

The server runs in a thread with a loop of its own. Nothing here sleeps: the page waits on conditions, the tests wait
on events, and a script waits on gates that the tests open.
"""

from __future__ import annotations

import asyncio
import queue
import shutil
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from shoal.core import Chunk, Message, Request, Usage
from shoal.core.errors import Unsupported
from shoal.core.fakes import Script, ScriptedGenerate, words
from shoal.core.receipt import Receipt, Signed
from shoal.core.receipt_view import Receipts, ReceiptStats, ReceiptView, Verification
from shoal.core.service import EngineStats, MeshView, ModelCard, PeerView, PingView, Service
from shoal.server.app import create_app
from shoal.server.config import ServerConfig

TIMEOUT_S = 20.0
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
MODELS = (ModelCard("tiny", capabilities=("completion", "chat")), ModelCard("pirate", parent="tiny"))
STATS = EngineStats(
    device="cpu", kernels="fake", max_running=8, max_waiting=64, blocks_total=100, block_size=16, steps_total=5
)


@dataclass
class Console:
    """The server behind the page. `script` answers requests, `ended` receives the id of each that is over."""

    script: Script = field(default_factory=lambda: words("Hello", " there."))
    config: ServerConfig = field(default_factory=ServerConfig)
    stats: EngineStats = STATS
    not_ready: str | None = None
    mesh: MeshView | None = None
    receipt: ReceiptView | None = None
    pinged: dict[str, PingView] = field(default_factory=dict)
    ended: queue.Queue[str] = field(default_factory=queue.Queue)
    port: int = 0

    def __post_init__(self) -> None:
        self.generate = ScriptedGenerate(lambda request: self.script(request))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def last_request(self) -> Request:
        return self.generate.seen[-1]

    def start(self) -> None:
        """Listens before it returns (connections queue in the backlog), on the same port as before."""
        listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = listener.getsockname()[1]
        app = create_app(self.service(), self.config)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(listener,))
        self._thread.start()

    def _serve(self, listener: socket.socket) -> None:
        self._loop.run_until_complete(self._server.serve([listener]))
        self._abort_connections()  # those accepted since `_break` looked: a dead process holds none open
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def stop(self) -> None:
        """Goes away as a killed process does: connections break, nothing is finished."""
        self._loop.call_soon_threadsafe(self._break)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def _break(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._abort_connections()

    def _abort_connections(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    def open(self, gate: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(gate.set)

    def wait_ended(self) -> str:
        """The id of the next request that is over, finished or cancelled."""
        return self.ended.get(timeout=TIMEOUT_S)

    def service(self) -> Service:
        return Service(
            generate=self._generate,
            models=lambda: MODELS,
            stats=lambda: replace(self.stats, steps_total=self.stats.steps_total),
            not_ready=lambda: self.not_ready,
            tokenize=_tokenize,
            detokenize=_detokenize,
            embed=_embed,
            load_adapter=_load_adapter,
            unload_adapter=_unload_adapter,
            receipts=Receipts(ReceiptStats, _encode, self._receipt, _verify),
            mesh=lambda: self.mesh,
            ping=self._ping,
        )

    async def _receipt(self, name: str) -> ReceiptView | None:
        return self.receipt

    async def _ping(self, peer: str) -> PingView:
        return self.pinged.get(peer, PingView(PeerView(peer, "known"), failure="no address is known"))

    async def _generate(self, request: Request) -> AsyncIterator[Chunk]:
        try:
            async with aclosing(cast(AsyncGenerator[Chunk], self.generate(request))) as chunks:
                async for chunk in chunks:
                    is_signed = chunk.usage is not None and self.receipt is not None and request.receipt
                    yield replace(chunk, receipt=Receipt()) if is_signed else chunk
        finally:
            self.ended.put(request.request_id)


def _encode(signed: Signed) -> dict[str, str]:
    return {"receipt": "AA==", "opening": "AA=="}


async def _verify(pairs: Sequence[tuple[str, str | None]]) -> Verification:
    return Verification(False, ())


async def _tokenize(model: str, text: str | tuple[Message, ...], special: bool) -> list[int]:
    return [len(str(text))]


async def _detokenize(model: str, ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


async def _embed(model: str, inputs: Sequence[str | tuple[int, ...]]) -> tuple[np.ndarray, int]:
    return np.ones((len(inputs), 1), np.float32), len(inputs)


async def _load_adapter(name: str, path: str) -> ModelCard:
    raise Unsupported("the fake loads no adapters")


async def _unload_adapter(name: str) -> None:
    raise Unsupported("the fake unloads no adapters")


Step = Chunk | Exception | asyncio.Event
Answer = Callable[..., Script]


@pytest.fixture
def answer() -> Answer:
    """`answer("a", gate, "b")`: text, gates and errors in order, then a stop with its usage."""

    def make(*parts: str | asyncio.Event | Exception) -> Script:
        steps: list[Step] = [Chunk(text=part, token_ids=(0,)) if isinstance(part, str) else part for part in parts]
        usage = Usage(prompt_tokens=12, completion_tokens=len(steps), cached_tokens=4)
        return lambda request: [*steps, Chunk(finish_reason="stop", usage=usage)]

    return make


@pytest.fixture
def console() -> Iterator[Console]:
    server = Console()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module. It is part of what is tested, so its absence fails rather than skips."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail(
            "the console is tested in Chromium, which is not on PATH: install it (Debian: apt install chromium)"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """An empty profile; a page error or a message of level error fails the test that caused it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.set_default_timeout(TIMEOUT_S * 1000)
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert not errors, errors


@pytest.fixture
def page(context: BrowserContext, console: Console) -> Page:
    """The console, open and connected."""
    page = context.new_page()
    page.goto(console.url)
    page.locator("#status[data-state=online]").wait_for()
    return page


@pytest.fixture(scope="module")
def console_page(chromium: Browser) -> Iterator[Page]:
    """A page of its own server for a whole module of tests that only call the page's modules."""
    server = Console()
    server.start()
    page = chromium.new_page()
    page.goto(server.url)
    yield page
    page.close()
    server.stop()
