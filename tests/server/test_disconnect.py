"""A client that goes away cancels its work at once, whatever the endpoint; a server that drains lets work end first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shoal.core.chunk import Chunk, Usage
from shoal.core.errors import Unavailable
from shoal.core.fakes import Script, ScriptedGenerate
from shoal.core.request import Request
from shoal.server import ServeOptions, ServerConfig, create_app, listen, serve

pytestmark = pytest.mark.real
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


class Noted(list[Any]):
    """A list one can wait on."""

    def __init__(self) -> None:
        self.grown = asyncio.Event()

    def append(self, item: Any) -> None:
        super().append(item)
        self.grown.set()

    async def reaches(self, length: int) -> None:
        async with asyncio.timeout(10):
            while len(self) < length:
                self.grown.clear()
                await self.grown.wait()


def endless(request: Request) -> Any:
    """One chunk, then silence until cancelled."""
    return [Chunk(text="first"), asyncio.Event()]


@asynccontextmanager
async def serving(
    service: Any, options: ServeOptions, config: ServerConfig | None = None
) -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Task[None]]]:
    listener = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    port = listener.getsockname()[1]
    task = asyncio.create_task(serve(create_app(service, config), listener, options, stop))
    try:
        yield port, stop, task
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await task


async def post(port: int, path: str, body: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    )
    writer.write(head.encode() + b"\r\n" + data)
    await writer.drain()
    return reader, writer


QUICK = ServeOptions(drain_s=1, handles_signals=False)


def scripted(script: Script) -> Any:
    return ScriptedGenerate(script, Noted(), Noted(), Noted())


@pytest.mark.parametrize(
    ("path", "body", "num_requests"),
    [
        ("/v1/chat/completions", CHAT, 1),
        ("/v1/chat/completions", CHAT | {"n": 3}, 1),
        ("/v1/completions", {"model": "tiny", "prompt": ["a", "b", "c"], "n": 2}, 3),
        ("/v1/responses", {"model": "tiny", "input": "hi"}, 1),
    ],
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_leaving_cancels(
    make_service: Callable[..., Any], path: str, body: dict[str, Any], num_requests: int, is_stream: bool
) -> None:
    async def go() -> None:
        generate = scripted(endless)
        async with serving(make_service(generate), QUICK) as (port, _, _):
            reader, writer = await post(port, path, body | {"stream": is_stream})
            if is_stream:
                await reader.readuntil(b"first")
            else:
                await generate.seen.reaches(num_requests)
            writer.transport.abort()
            await generate.cancelled.reaches(num_requests)
        assert sorted(generate.cancelled) == sorted(request.request_id for request in generate.seen)
        assert generate.finished == []

    asyncio.run(go())


def test_leaving_during_an_embedding_cancels_it(make_service: Callable[..., Any]) -> None:
    async def go() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def embed(model: str, inputs: Any) -> Any:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with serving(make_service(embed=embed), QUICK) as (port, _, _):
            _, writer = await post(port, "/v1/embeddings", {"model": "tiny", "input": "a"})
            async with asyncio.timeout(10):
                await began.wait()
                writer.close()
                await ended.wait()

    asyncio.run(go())


def test_one_failing_prompt_cancels_the_others(make_service: Callable[..., Any]) -> None:
    async def go() -> None:
        generate = scripted(lambda request: [Unavailable("no")] if request.prompt == "b" else endless(request))
        async with serving(make_service(generate), QUICK) as (port, _, _):
            reader, writer = await post(port, "/v1/completions", {"model": "tiny", "prompt": ["a", "b", "c"]})
            assert b" 503 " in await reader.readline()
            assert len(generate.cancelled) == 2
            writer.close()

    asyncio.run(go())


def test_a_silent_stream_gets_comments_and_then_its_error_as_an_event(make_service: Callable[..., Any]) -> None:
    async def go() -> None:
        go_on = asyncio.Event()
        generate = scripted(lambda request: [go_on, Unavailable("gone")])
        async with serving(make_service(generate), QUICK, ServerConfig(keepalive_s=0.01)) as (port, _, _):
            reader, writer = await post(port, "/v1/chat/completions", CHAT | {"stream": True})
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b": keep-alive\n\n")
            go_on.set()
            rest = await reader.readuntil(b"0\r\n\r\n")
            assert b'"code":"service_unavailable"' in rest
            assert b"[DONE]" not in rest
            writer.close()

    asyncio.run(go())


def test_draining_lets_a_running_answer_end(make_service: Callable[..., Any]) -> None:
    async def go() -> None:
        finish = asyncio.Event()
        generate = scripted(
            lambda request: [Chunk(text="first"), finish, Chunk(finish_reason="stop", usage=Usage(1, 1))]
        )
        async with serving(make_service(generate), ServeOptions(60, handles_signals=False)) as (port, stop, task):
            reader, writer = await post(port, "/v1/chat/completions", CHAT | {"stream": True})
            await reader.readuntil(b"first")
            stop.set()
            await refuses(port)
            assert not task.done()
            finish.set()
            assert b"[DONE]" in await reader.read()
            writer.close()
        assert (len(generate.finished), generate.cancelled) == (1, [])

    asyncio.run(go())


def test_a_drain_that_takes_too_long_cancels(make_service: Callable[..., Any]) -> None:
    async def go() -> None:
        generate = scripted(endless)
        async with serving(make_service(generate), QUICK) as (port, stop, task):
            reader, writer = await post(port, "/v1/chat/completions", CHAT | {"stream": True})
            await reader.readuntil(b"first")
            stop.set()
            async with asyncio.timeout(10):
                await task
            assert len(generate.cancelled) == 1
            writer.close()

    asyncio.run(go())


async def refuses(port: int) -> None:
    """Until new connections are refused."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:  # it was in the backlog of the socket that closed
                continue
            writer.close()
            await asyncio.sleep(0)
