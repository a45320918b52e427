"""The command line in this process: exit codes, messages, tables and JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import shoal
from shoal.core.errors import BadConfig, BadWeights, LocalError
from shoal.node.application import app
from shoal.node.cli import _fail, main

EMPTY_GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a space in its name, and no configuration of the person who runs the tests."""
    for name in ("SHOAL_CONFIG", "SHOAL_TEST_GGUF", "SHOAL_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "a store"))
    return tmp_path


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("up", "chat", "run", "models", "bench", "doctor", "config"):
        assert re.search(rf"^  {command}  +\w", result.output, re.MULTILINE)


@pytest.mark.parametrize("command", ["up", "chat", "run", "bench", "doctor", "config", "models pull", "models info"])
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"shoal {shoal.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["upp"], ["up", "--prot", "1"], ["run", "--max-tokens", "0", "x"], ["models", "info"], []]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "Usage: " in captured.err + captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up", "--port", "70000"], "shoal: --port: expected a whole number from 0 to 65535, found '70000'"),
        (["run", "--device", "tpu", "x"], "shoal: --device: expected one of auto, cpu, cuda, found 'tpu'"),
        (["config", "--kv-memory", "lots"], "shoal: --kv-memory: expected a size"),
        (["models", "pull", "no-such-model"], "'no-such-model' is neither a known model"),
        (["models", "rm", "no-such-model"], "'no-such-model' is not in the store"),
        (
            ["models", "info", "no-such-model"],
            "there: nothing yet); try: a path, hf:owner/name, or shoal models list",
        ),
        (["run", "   "], "prompt: expected some text"),
        (["run", "--schema", "no-such-file", "x"], "--schema: expected a file with a JSON Schema"),
        (["run", "--url", "ftp://x", "x"], "--url: expected http://host:port"),
    ],
)
def test_wrong_values_are_exit_code_2_and_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (LocalError("no room"), 1, "shoal: no room\n"),
        (BadConfig("port", "no"), 2, "shoal: port: no\n"),
        (BadWeights("f", "magic", "GGUF", "PK"), 1, "shoal: f: magic: expected GGUF, found PK\n"),
        (OSError(28, "No space left on device"), 1, "shoal: [Errno 28] No space left on device\n"),
        (KeyError("x"), 1, "shoal: internal error, please report it (--debug shows where): KeyError: 'x'\n"),
    ],
)
def test_errors_become_one_message_and_a_code(
    error: Exception, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fail(error) == code
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("arguments", [["--debug", "models", "rm", "x"], ["models", "rm", "x", "--debug"]])
def test_debug_shows_the_error_whole(arguments: list[str]) -> None:
    with pytest.raises(BadConfig):
        main(arguments)


def test_models_from_empty_to_pulled_to_removed(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = own_home / "my file.gguf"
    file.write_bytes(EMPTY_GGUF)
    assert main(["models", "list"]) == 0
    assert "smollm2-135m  98.4 MB  not pulled" in capsys.readouterr().out
    assert main(["models", "pull", str(file), "--name", "mine", "--json"]) == 0
    pulled = json.loads(capsys.readouterr().out)
    assert (pulled["name"], pulled["path"], pulled["format"]) == ("mine", str(file), "gguf")
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [record["name"] for record in listed["stored"]] == ["mine"]
    assert listed["known"] == ["smollm2-135m"]
    assert main(["models", "rm", "mine"]) == 0
    assert file.exists()
    assert main(["models", "rm", "mine"]) == 2


def test_what_cannot_be_served_is_said_when_it_is_pulled(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_home / "empty.gguf").write_bytes(EMPTY_GGUF)
    assert main(["models", "pull", str(own_home / "empty.gguf"), "--copy"]) == 0
    assert "warning: it cannot be served by this version of Shoal" in capsys.readouterr().err
    (own_home / "cut.gguf").write_bytes(EMPTY_GGUF[:20])
    assert main(["models", "pull", str(own_home / "cut.gguf")]) == 1
    assert "cut.gguf: " in capsys.readouterr().err


@pytest.mark.real
def test_info_of_the_default_model(default_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", str(default_gguf), "--name", "default"]) == 0
    capsys.readouterr()
    assert main(["models", "info", "default", "--check"]) == 0
    table = capsys.readouterr().out
    for words in ("llama", "134,515,008", "8,192 tokens", "49,152 tokens", "b179c9523d0e6a0f", "apache-2.0", "Q4_1"):
        assert words in table
    assert main(["models", "info", str(default_gguf), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["num_layers"] == 30
    assert sum(use["num_tensors"] for use in found["storages"]) == 272


@pytest.mark.real
def test_check_notices_one_changed_byte(default_gguf: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", str(default_gguf), "--name", "default", "--copy"]) == 0
    (copy,) = (own_home / "a store" / "models" / "default").glob("*.gguf")
    with copy.open("r+b") as file:
        file.seek(-100, 2)
        byte = file.read(1)
        file.seek(-100, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert main(["models", "info", "default"]) == 0
    assert main(["models", "info", "default", "--check"]) == 1
    assert "sha256: expected b179c952" in capsys.readouterr().err


def test_closed_streams_and_a_poor_encoding_are_no_bugs(own_home: Path) -> None:
    """Each was once an "internal error, please report it"."""

    def shoal(redirection: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = f'"{sys.executable}" -m shoal config {redirection}'
        return subprocess.run(command, shell=True, env=os.environ | variables, capture_output=True, text=True)

    closed = shoal("<&- >&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    poor = shoal("", SHOAL_HOME=str(own_home / "é"), PYTHONIOENCODING="ascii")
    assert (poor.returncode, poor.stderr) == (0, "")
    assert f"{own_home.name}/?" in poor.stdout
