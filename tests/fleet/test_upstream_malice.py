"""An upstream server that does its worst: bounded memory, its fault by name, and no secret of ours in any error."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from fleet_houses import CHAT

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.errors import LinkClosed, LocalError, PeerFault, ShoalError, Unavailable
from shoal.fleet.upstream import MAX_EVENT_BYTES, MAX_LIST_BYTES, STALL_S, Upstream, UpstreamConfig

KEY = "sk-very-secret"
Answer = Callable[[httpx.Request], httpx.Response]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


class Endless(httpx.AsyncByteStream):
    """`piece` again and again; `given` bytes so far."""

    def __init__(self, piece: bytes, clock: VirtualClock | None = None) -> None:
        self.piece, self.clock, self.given = piece, clock, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.given += len(self.piece)
            if self.clock is not None:
                await self.clock.advance(10.0)
            yield self.piece


async def ask(answer: Answer, clock: VirtualClock | None = None) -> list[Chunk]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        upstream = Upstream(UpstreamConfig("one", "http://one", "vllm", KEY), client, clock or VirtualClock())
        return [chunk async for chunk in upstream.generate(CHAT)]


async def listed(answer: Answer) -> tuple[str, ...]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        return await Upstream(UpstreamConfig("one", "http://one", "vllm", KEY), client, VirtualClock()).models()


class Once(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


def streamed(body: bytes | httpx.AsyncByteStream, status: int = 200) -> Answer:
    return lambda request: httpx.Response(status, stream=Once(body) if isinstance(body, bytes) else body)


def test_an_endless_line_an_endless_list_and_an_endless_error_end() -> None:
    async def test() -> None:
        line, names, words = Endless(b"x" * 65536), Endless(b"[" * 65536), Endless(b"no " * 9000)
        with pytest.raises(PeerFault, match="at most"):
            await ask(streamed(line))
        assert line.given < MAX_EVENT_BYTES + 200_000
        with pytest.raises(PeerFault, match="at most"):
            await listed(streamed(names))
        assert names.given < MAX_LIST_BYTES + 200_000
        with pytest.raises(Unavailable):
            await ask(streamed(words, 500))
        assert words.given < 100_000

    run(test)


def test_comments_alone_are_no_answer() -> None:
    async def test() -> None:
        clock = VirtualClock()
        with pytest.raises(LinkClosed, match="nothing of an answer"):
            await ask(streamed(Endless(b": still thinking\n\n", clock)), clock)
        assert STALL_S < clock.monotonic() < STALL_S + 30

    run(test)


@pytest.mark.parametrize(
    "event",
    [
        b"[" * 200_000,
        b'{"choices": [{"index": 0, "text": "a", "logprobs": {"content": [{"bytes": 10000000000, "logprob": 0}]}}]}',
        b'{"choices": [], "usage": {"prompt_tokens": Infinity}}',
        b'{"choices": [{"index": 0, "delta": {"tool_calls": [{"id": {"a": 1}, "function": {"name": 3}}]}}]}',
        b'{"choices": [{"index": 1e400, "text": "a"}]}',
        b'{"choices": 7}',
        b"[]",
        b"null",
    ],
)
def test_an_event_that_is_none_is_the_servers_fault(event: bytes) -> None:
    async def test() -> None:
        with pytest.raises(ShoalError):
            await ask(streamed(b"data: " + event + b"\n\ndata: [DONE]\n\n"))

    run(test)


def test_redirects_are_not_followed_and_compressed_bytes_not_unpacked() -> None:
    seen: list[str] = []
    packed = gzip.compress(bytes(50_000_000))

    def away(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(307, headers={"location": "http://169.254.169.254/latest"}, stream=Once(b""))

    def bomb(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Once(packed))

    async def test() -> None:
        for call in (ask, listed):
            with pytest.raises(Unavailable, match="307"):
                await call(away)
        assert all(url.startswith("http://one/") for url in seen)
        with pytest.raises(PeerFault):
            await listed(bomb)

    run(test)


def test_errors_hold_neither_our_key_nor_control_characters() -> None:
    async def test() -> None:
        said = b'{"error": {"message": "Incorrect key sk-very-secret \\u001b[2J"}}'
        for status in (400, 401, 404, 429, 500):
            with pytest.raises(ShoalError) as caught:
                await ask(streamed(said, status))
            assert KEY not in str(caught.value)
            assert "\x1b" not in str(caught.value)
        with pytest.raises(LocalError) as failed:
            await ask(streamed(b'data: {"error": "sk-very-secret \x1b[2J"}\n\n'))
        assert KEY not in str(failed.value)
        assert "\x1b" not in str(failed.value)

    run(test)


def test_models_have_names_that_can_be_shown() -> None:
    async def test() -> None:
        found = await listed(streamed(b'{"data": [{"id": "good"}, {"id": "\\u001b[2J"}, {"id": ""}, {"id": 7}]}'))
        assert found == ("good", "7")
        for body in (b"", b"<html>", b'{"data": 7}', b'{"data": [[]]}', b'{"data": null}', b"[" * 100_000):
            with pytest.raises(PeerFault):
                await listed(streamed(body))

    run(test)
