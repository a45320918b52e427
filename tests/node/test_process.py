"""The `shoal` command as a process of its own, with the real model: pipes, signals, exit codes, a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from shoal.node.home import home

pytestmark = pytest.mark.real

TALE = "Tell me a very long story about the sea."


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home of its own (with a space in its name) that shares this machine's compiled kernels."""
    own = tmp_path_factory.mktemp("home") / "a home"
    kernels = home(os.environ) / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    own.mkdir()
    (own / "kernels").symlink_to(kernels)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    return {**kept, "SHOAL_HOME": str(own), "XDG_CONFIG_HOME": str(own), "PYTHONUNBUFFERED": "1"}


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str], default_gguf: Path) -> Iterator[Start]:
    """Start `shoal COMMAND ... --model <the default model>`; what still runs after the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "shoal", *arguments, "--model", str(default_gguf)]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(command, env=environment, text=True, **streams)  # type: ignore[call-overload]
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], given: str | None = None) -> tuple[int, str, str]:
    """Exit code and both outputs, which never show a traceback."""
    output, errors = process.communicate(given, timeout=120)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    return process.returncode, output, errors


def line_with(stream: IO[str], text: str) -> str:
    """The first line that contains `text`."""
    for line in stream:
        if text in line:
            return line
    pytest.fail(f"the output ended without {text!r}")


def test_run_answers_the_same_from_stdin_and_from_arguments(start: Start) -> None:
    options = ("--temperature", "0", "--max-tokens", "12")
    code, output, errors = finish(start("run", *options), "What is the capital of France?\n")
    assert (code, errors) == (0, "")
    assert len(output.split()) > 3
    _, as_json, _ = finish(start("run", *options, "--json", "What is the capital", "of France?"))
    assert json.loads(as_json)["text"] + "\n" == output


def test_run_satisfies_a_schema_and_reports_its_cost(start: Start, tmp_path: Path) -> None:
    schema = tmp_path / "a schema.json"
    schema.write_text('{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], '
                      '"additionalProperties": false}')  # fmt: skip
    process = start("run", "--json", "--schema", str(schema), "--max-tokens", "60", "--seed", "1", "Invent a person")
    code, output, _ = finish(process, "")
    answer = json.loads(output)
    assert code == 0
    assert set(json.loads(answer["text"])) == {"age"}
    assert answer["usage"]["completion_tokens"] > 0


def test_the_same_seed_gives_the_same_answer(start: Start) -> None:
    arguments = ("run", "--seed", "3", "--temperature", "1", "--max-tokens", "16", "Name a colour")
    first, second = (finish(start(*arguments))[1] for _ in range(2))
    assert first == second


def test_ctrl_c_in_an_answer_is_130_without_a_traceback(start: Start) -> None:
    process = start("run", TALE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


def test_a_reader_that_goes_away_ends_the_answer(start: Start) -> None:
    process = start("run", TALE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.stdout.close()
    process.stdout = None
    code, _, errors = finish(process)
    assert (code, errors) == (1, "")


def test_up_serves_until_a_signal(start: Start) -> None:
    for stop, code in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
        process = start("up", "--port", "0", "--log-format", "off")
        assert process.stderr is not None
        line = line_with(process.stderr, "serving")
        url = re.findall(r"http://127\.0\.0\.1:\d+", line)[0]
        with urllib.request.urlopen(url + "/readyz", timeout=60) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(url + "/v1/models", timeout=60) as answer:
            assert len(json.load(answer)["data"]) == 1
        process.send_signal(stop)
        assert finish(process)[0] == code


def test_ctrl_c_while_loading_is_clean(start: Start) -> None:
    process = start("up", "--port", "0")
    assert process.stderr is not None
    line_with(process.stderr, "loading")
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


def test_a_port_in_use_is_said_at_once(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, errors = finish(start("up", "--port", str(taken.getsockname()[1])))
    assert code == 2
    assert "cannot listen on 127.0.0.1" in errors
    assert len(errors.splitlines()) == 1


def test_bench_prints_json(start: Start) -> None:
    code, output, _ = finish(start("bench", "--json", "--tokens", "8"))
    rows = json.loads(output)["rows"]
    assert code == 0
    assert {(row["what"], row["batch"]) for row in rows} == {("prefill", 1), ("decode", 1), ("decode", 8)}
    assert all(row["tokens_per_s"] > 0 for row in rows)


def test_chat_in_a_terminal_ctrl_c_stops_the_answer_only(start: Start) -> None:
    master, slave = pty.openpty()
    process = start("chat", stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    seen = Terminal(master)
    seen.until("> ")
    os.write(master, TALE.encode() + b"\n")
    seen.until(TALE)
    seen.until("the")
    process.send_signal(signal.SIGINT)
    seen.until("(stopped)")
    seen.until("> ")
    os.write(master, b"/exit\n")
    assert process.wait(60) == 0
    os.close(master)
    assert "Traceback" not in seen.text


class Terminal:
    """What a terminal shows; `until` reads on until some text has appeared after the last one waited for."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._position = 0
        self.text = ""

    def until(self, text: str) -> None:
        while (found := self.text.find(text, self._position)) < 0:
            data = os.read(self._master, 4096)
            assert data, f"the terminal ended without {text!r}: {self.text!r}"
            self.text += data.decode(errors="replace")
        self._position = found + len(text)
