"""`--url`: our client against our server, with a scripted model behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from shoal.core.chunk import Chunk
from shoal.core.errors import LocalError, RemoteError, Unauthorized, Unsupported
from shoal.core.fakes import Script, ScriptedGenerate, words
from shoal.core.request import Message, Request, Sampling
from shoal.core.service import EngineStats, ModelCard, Service
from shoal.node.cli import main
from shoal.node.remote import Server, first_model, remote_generate
from shoal.server import ServeOptions, ServerConfig, create_app, listen, serve

QUESTION = Request("r1", "tiny", (Message("user", "hello"),))


async def refuse(*arguments: object) -> None:
    raise LocalError("not in this test")


def service_of(generate: ScriptedGenerate) -> Service:
    def models() -> Sequence[ModelCard]:
        return (ModelCard("tiny", capabilities=("chat",)),)

    return Service(generate, models, EngineStats, lambda: None, refuse, refuse, refuse, refuse, refuse)  # type: ignore[arg-type]


@contextmanager
def serving(script: Script, config: ServerConfig | None = None) -> Iterator[tuple[str, ScriptedGenerate]]:
    """A server in a thread: its URL, and the generate that it asks."""
    generate = ScriptedGenerate(script)
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    app = create_app(service_of(generate), config or ServerConfig(log_format="off"))
    options = ServeOptions(drain_s=1.0, handles_signals=False)
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(app, listener, options, stop)))
    thread.start()
    try:
        yield url, generate
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def collect(server: Server, request: Request) -> list[Chunk]:
    return [chunk async for chunk in remote_generate(server)(request)]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_an_answer_arrives_whole(suffix: str) -> None:
    with serving(words("Hel", "lo ", "wörld 🐟")) as (url, generate):
        server = Server(url + suffix)
        assert asyncio.run(first_model(server)) == "tiny"
        chunks = asyncio.run(collect(server, QUESTION))
    assert "".join(chunk.text for chunk in chunks) == "Hello wörld 🐟"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert generate.seen[0].prompt == QUESTION.prompt


def test_closing_the_iterator_cancels_the_work_there() -> None:
    gate = asyncio.Event()

    async def first_chunk_only(url: str) -> str:
        stream = remote_generate(Server(url))(QUESTION)
        chunk = await anext(chunk async for chunk in stream if chunk.text)
        await stream.aclose()  # type: ignore[attr-defined]
        return chunk.text

    with serving(lambda request: [Chunk(text="one"), gate, Chunk(text="two")]) as (url, generate):
        assert asyncio.run(first_chunk_only(url)) == "one"
    assert generate.cancelled == [generate.seen[0].request_id]


def test_cancelling_while_the_server_is_silent_ends_at_once() -> None:
    """The thread that waits for the head of the answer must not keep the process alive."""
    gate = asyncio.Event()

    async def run(url: str) -> None:
        task = asyncio.create_task(collect(Server(url), QUESTION))
        while not generate.seen:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(lambda request: [gate]) as (url, generate):
        asyncio.run(run(url))


def test_an_error_in_the_middle_is_an_error_here() -> None:
    with (
        serving(lambda request: [Chunk(text="one"), LocalError("the engine is tired")]) as (url, _),
        pytest.raises(RemoteError, match="the engine is tired"),
    ):
        asyncio.run(collect(Server(url), QUESTION))


def test_keys() -> None:
    with serving(words("hi"), ServerConfig(api_keys=("secret",), log_format="off")) as (url, _):
        assert asyncio.run(collect(Server(url, "secret"), QUESTION))
        for key in (None, "wrong"):
            with pytest.raises(Unauthorized, match="refused the key"):
                asyncio.run(collect(Server(url, key), QUESTION))


def test_nobody_there_says_what_to_do() -> None:
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    with pytest.raises(LocalError, match="is `shoal up` running there"):
        asyncio.run(collect(Server(url), QUESTION))


def test_what_cannot_be_sent_is_refused_by_name() -> None:
    request = Request("r1", "tiny", QUESTION.prompt, Sampling(top_k=3))
    with pytest.raises(Unsupported, match="top_k"):
        asyncio.run(collect(Server("http://127.0.0.1:1"), request))


def test_run_over_url(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    with serving(words("{", "}")) as (url, generate):
        arguments = ["run", "--url", url, "--system", "be brief", "--seed", "7", "--schema", str(schema), "--json"]
        assert main([*arguments, "make", "one"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["finish_reason"], answer["model"]) == ("{}", "stop", "tiny")
    request = generate.seen[0]
    assert request.prompt == (Message("system", "be brief"), Message("user", "make one"))
    assert request.sampling.seed == 7
    assert request.constraint is not None
    assert json.loads(request.constraint.value) == {"type": "object"}


def test_run_reads_stdin_where_the_dash_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("line one\nline two\n"))
    with serving(words("ok")) as (url, generate):
        assert main(["run", "--url", url, "Summarise:", "-"]) == 0
    assert generate.seen[0].prompt == (Message("user", "Summarise: line one\nline two"),)
    assert capsys.readouterr().out == "ok\n"


def test_chat_remembers_obeys_and_goes_on_after_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    lines = ["first", "/system be kind", "two \\", "lines", "break", "/retry", "/nonsense", "/reset", "again"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))

    def script(request: Request) -> Sequence[Chunk | Exception | asyncio.Event]:
        if len(generate.seen) == 3:
            return [LocalError("out of luck")]
        return words(f"answer {len(generate.seen)}")(request)

    with serving(script) as (url, generate):
        assert main(["chat", "--url", url]) == 0
    captured = capsys.readouterr()
    prompts = [[(item.role, item.content) for item in request.prompt] for request in generate.seen]  # type: ignore[union-attr]
    kind = ("system", "be kind")
    before = [kind, ("user", "two \nlines"), ("assistant", "answer 2"), ("user", "break")]
    assert prompts[:1] == [[("user", "first")]]
    assert prompts[1:] == [[kind, ("user", "two \nlines")], before, before, [kind, ("user", "again")]]
    assert captured.out == "answer 1\nanswer 2\nanswer 4\nanswer 5\n"
    assert "out of luck" in captured.err
    assert "/nonsense is no command" in captured.err
