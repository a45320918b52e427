"""Clients that leave, clients that come all at once, and ends of the process: nothing leaks and nobody hangs."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from served import Served, assert_idle, served, until

pytestmark = pytest.mark.real

CONTEXT = 512
LONG: Any = [{"role": "user", "content": "Tell me a very long story about the sea."}]


@pytest.fixture(scope="module")
def small(default_gguf: Path, home: Path) -> Iterator[Served]:
    """Two at work, two in the queue, and not one more."""
    flags = ("--max-running", "2", "--max-waiting", "2", "--context-length", str(CONTEXT))
    with served(default_gguf, home, *flags) as running:
        yield running


def endless(server: Served, **options: Any) -> dict[str, Any]:
    """A chat that ends only where the context does, minutes later than any test here would wait."""
    return {"model": server.model, "messages": LONG, "ignore_eos": True, "temperature": 0} | options


def is_running(server: Served, wanted: int) -> bool:
    return bool(server.stats()["num_running"] == wanted)


# ---- clients that leave -----------------------------------------------------------------------------------


def test_leaving_a_stream_frees_its_blocks(small: Served) -> None:
    for _ in range(3):
        with httpx.stream("POST", f"{small.url}/v1/chat/completions", json=endless(small, stream=True)) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
        assert_idle(small)


def test_leaving_a_whole_answer_frees_its_blocks(small: Served) -> None:
    body = json.dumps(endless(small)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"  # noqa: E501
    with socket.create_connection(("127.0.0.1", small.port)) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: is_running(small, 1))
    assert_idle(small)


def test_leaving_while_queued_gives_the_seat_back(small: Served) -> None:
    async def go() -> None:
        async with small.async_client() as asker:
            tasks = [
                asyncio.create_task(asker.chat.completions.create(model=small.model, messages=LONG)) for _ in range(4)
            ]
            while (await asyncio.to_thread(small.stats))["num_waiting"] < 2:
                assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(go())
    assert_idle(small)


# ---- clients that come all at once ------------------------------------------------------------------------


def test_the_surplus_gets_429_and_the_rest_their_answers(small: Served) -> None:
    async def one(asker: openai.AsyncOpenAI) -> Any:
        try:
            return await asker.chat.completions.create(
                model=small.model, messages=LONG, max_tokens=16, temperature=0, extra_body={"ignore_eos": True}
            )
        except openai.RateLimitError as refused:
            return refused

    async def go() -> list[Any]:
        async with small.async_client() as asker:
            return await asyncio.gather(*(one(asker) for _ in range(16)))

    results = asyncio.run(go())
    refused = [result for result in results if isinstance(result, openai.RateLimitError)]
    answers = {result.choices[0].message.content for result in results if result not in refused}
    assert 1 <= len(refused) <= 12
    assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)
    assert {error.code for error in refused} == {"rate_limit_exceeded"}
    assert len(answers) == 1
    assert_idle(small)


def test_the_client_s_own_retries_carry_everybody_through(small: Served) -> None:
    async def go() -> list[Any]:
        async with small.async_client(max_retries=10) as asker:
            burst = [
                asker.chat.completions.create(model=small.model, messages=LONG, max_tokens=4) for _ in range(10)
            ]  # fmt: skip
            return await asyncio.gather(*burst)

    assert all(done.usage.completion_tokens <= 4 for done in asyncio.run(go()))


def test_n_beyond_the_seats_is_refused_by_name(small: Served) -> None:
    answer = small.post("/v1/chat/completions", endless(small, n=3))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


# ---- the edge of the context ------------------------------------------------------------------------------


def test_the_context_can_be_full_to_the_last_token(small: Served) -> None:
    def complete(num_tokens: int, **options: Any) -> httpx.Response:
        prompt = [5 + position % 7 for position in range(num_tokens)]
        return small.post("/v1/completions", {"model": small.model, "prompt": prompt, "temperature": 0} | options)

    full = complete(CONTEXT - 1, max_tokens=1).json()
    assert full["usage"]["total_tokens"] == CONTEXT
    for refused in (complete(CONTEXT - 1, max_tokens=2), complete(CONTEXT, max_tokens=1)):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")


def test_an_answer_without_a_limit_ends_where_the_context_does(small: Served) -> None:
    done = small.post("/v1/chat/completions", endless(small, messages=[{"role": "user", "content": "a " * 440}])).json()
    assert done["choices"][0]["finish_reason"] == "length"
    assert done["usage"]["total_tokens"] == CONTEXT


# ---- health, time and ends --------------------------------------------------------------------------------


def test_health_metrics_and_models(small: Served) -> None:
    assert httpx.get(f"{small.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{small.url}/readyz").json() == {"status": "ready"}
    metrics = httpx.get(f"{small.url}/metrics").text
    assert "num_requests_running" in metrics
    (model,) = small.client().models.list().data
    assert model.id == small.model


def test_langchain_invokes_and_streams(small: Served) -> None:
    chat = ChatOpenAI(
        base_url=f"{small.url}/v1",
        api_key=SecretStr("none"),
        model=small.model,
        temperature=0,
        max_completion_tokens=12,
    )
    answer = chat.invoke("What is the capital of France?")
    assert answer.content == "".join(str(chunk.content) for chunk in chat.stream("What is the capital of France?"))
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] <= 12


def test_a_deadline_ends_a_long_answer_and_frees_it(default_gguf: Path, home: Path) -> None:
    with served(default_gguf, home, "--request-timeout", "1s") as server:
        late = server.post("/v1/chat/completions", endless(server))
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert_idle(server)
        body = {"model": server.model, "prompt": "Hi", "max_tokens": 2}
        assert server.post("/v1/completions", body).status_code == 200


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_lets_the_running_answer_end(default_gguf: Path, home: Path, kind: signal.Signals, code: int) -> None:
    with served(default_gguf, home) as server, ThreadPoolExecutor() as pool:
        answer = pool.submit(server.post, "/v1/chat/completions", endless(server, max_tokens=48))
        until(lambda: is_running(server, 1))
        assert server.end(kind) == code
        assert answer.result().json()["usage"]["completion_tokens"] == 48
        assert "Traceback" not in server.printed()
        with pytest.raises(httpx.TransportError):
            server.stats()


def test_a_second_signal_does_not_wait_for_the_answer(default_gguf: Path, home: Path) -> None:
    """It once printed three tracebacks, answered 500 and exited with 1."""
    with served(default_gguf, home) as server, ThreadPoolExecutor() as pool:
        answer = pool.submit(server.post, "/v1/chat/completions", endless(server))
        until(lambda: is_running(server, 1))
        server.process.send_signal(signal.SIGINT)
        until(lambda: not _accepts(server.port))
        assert server.end(signal.SIGINT) == 130
        assert (answer.result().status_code, answer.result().json()["error"]["code"]) == (503, "service_unavailable")
        assert "Traceback" not in server.printed()


def test_a_killed_server_starts_again_on_its_port(default_gguf: Path, home: Path) -> None:
    with served(default_gguf, home) as first:
        port = first.port
        with httpx.stream("POST", f"{first.url}/v1/chat/completions", json=endless(first, stream=True)) as response:
            next(response.iter_lines())
            assert first.end(signal.SIGKILL) == -signal.SIGKILL
    with served(default_gguf, home, "--port", str(port)) as second:
        assert second.port == port
        body = {"model": second.model, "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}
        assert second.post("/v1/completions", body).json()["choices"][0]["text"] == " Paris"


def test_a_taken_port_is_named(small: Served, default_gguf: Path, home: Path) -> None:
    with (
        pytest.raises(AssertionError, match=rf"ended with 2(.|\n)*{small.port}(.|\n)*choose another port"),
        served(default_gguf, home, "--port", str(small.port)),
    ):
        pass


def test_nothing_is_left_behind(small: Served) -> None:
    assert_idle(small)
    assert "Traceback" not in small.printed()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
