"""`shoal draft`: a tiny target's draft from the command line, killed and resumed; what is refused, and how."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from shoal.models.checkpoint import open_checkpoint
from shoal.models.draft_training.files import write_draft
from shoal.models.draft_training.outputs import read_outputs
from shoal.models.tensors import Tensor
from shoal.models.tiny import tiny_checkpoint
from shoal.node.cli import main
from shoal.node.home import home


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own that shares this machine's compiled kernels."""
    kernels, own = home(os.environ) / "kernels", tmp_path / "home"
    kernels.mkdir(parents=True, exist_ok=True)
    own.mkdir()
    (own / "kernels").symlink_to(kernels)
    monkeypatch.setenv("SHOAL_HOME", str(own))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    return own


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_target(tmp_path / "target.gguf")


def write_target(path: Path) -> Path:
    tiny = tiny_checkpoint()
    values = {name: floats(tensor) for name, tensor in tiny.weights.items()}
    write_draft(path, tiny, tiny.config, values, "Q8_0")
    return path


def floats(tensor: Tensor) -> np.ndarray:
    return tensor.data.view("<f4").reshape(tensor.shape)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("It was the best of times, it was the worst of times.\n" * 50)
    return tmp_path / "text.txt"


def arguments(target: Path, text: Path, out: Path, *more: str) -> list[str]:
    return ["draft", "train", "--target", str(target), "--text", str(text), "--out", str(out), "--steps", "24",
            "--outputs", "6", "--hidden", "32", "--ffn", "64", "--threads", "1", *more]  # fmt: skip


def test_train_then_report(target: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "draft.gguf"
    assert main(arguments(target, text, out)) == 0
    said = capsys.readouterr().err
    assert "text: 2,651 tokens" in said
    assert "align 16 of 16" in said
    draft = open_checkpoint(out)
    assert (draft.config.hidden_size, draft.config.num_layers, draft.quantization) == (32, 1, "Q8_0")
    assert open_checkpoint(tmp_path / "draft.gguf.work" / "pretrained.gguf").config == draft.config
    assert main(["draft", "report", "--target", str(target), "--draft", str(out), "--tokens", "8", "--length", "2",
                 "--threads", "1", "--json"]) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["draft_parameters"] < found["target_parameters"]
    assert [(row["kind"], row["temperature"]) for row in found["rows"]] == [
        (kind, heat) for heat in (0.0, 0.6) for kind in ("chat", "text", "code", "all")
    ]
    assert all(row["is_identical"] for row in found["rows"] if row["temperature"] == 0)
    assert found["is_worth_it"] is any(row["wall_clock"] > 1.05 for row in found["rows"] if row["kind"] == "all")


def test_the_report_s_table_is_for_people(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draft", "report", "--target", str(target), "--draft", str(target), "--tokens", "8", "--threads", "1",
                 "--temperature", "0"]) == 0  # fmt: skip
    found = capsys.readouterr()
    rows = found.out.splitlines()
    assert rows[0].split()[:4] == ["prompts", "temperature", "length", "accepted"]
    assert rows[4].split()[:5] == ["all", "0", "3", "1.000", "4.00"]  # a model is its own best draft
    assert "this draft is" in found.err


def test_a_killed_training_resumes_to_the_same_file(target: Path, text: Path, tmp_path: Path) -> None:
    """SIGKILL while it trains, once after a checkpoint would do and once before any: the file is the same."""
    whole, out = tmp_path / "whole.gguf", tmp_path / "killed.gguf"
    assert main(arguments(target, text, whole)) == 0
    command = [sys.executable, "-m", "shoal", *arguments(target, text, out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any(line.startswith("text 1 of 8") for line in process.stderr)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    assert not out.exists()
    assert main(arguments(target, text, out, "--resume")) == 0
    assert out.read_bytes() == whole.read_bytes()
    before = read_outputs(tmp_path / "whole.gguf.work" / "outputs.jsonl")
    assert read_outputs(tmp_path / "killed.gguf.work" / "outputs.jsonl") == before


def test_resuming_is_asked_for_and_changes_nothing(
    target: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "draft.gguf"
    assert main(arguments(target, text, out, "--resume")) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert main(arguments(target, text, out)) == 0
    assert main(arguments(target, text, out)) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*arguments(target, text, out, "--resume"), "--seed", "1"]) == 2
    assert "seed is 1 now, this training began with 0" in capsys.readouterr().err


def test_minutes_choose_steps_and_outputs(target: Path, text: Path, tmp_path: Path) -> None:
    command = arguments(target, text, tmp_path / "draft.gguf")
    del command[command.index("--steps") : command.index("--hidden")]
    assert main([*command, "--minutes", "0.1"]) == 0
    plan = json.loads((tmp_path / "draft.gguf.work" / "plan.json").read_text())
    assert plan["steps"] >= 2
    assert open_checkpoint(tmp_path / "draft.gguf").config.hidden_size == 32


@pytest.mark.parametrize(("more", "says"), [
    (["--hidden", "33"], "--hidden"), (["--layers", "9"], "--layers"), (["--quantize", "Q2_K"], "--quantize"),
    (["--text", "/nowhere/at/all"], "--text"), (["--target", "/nowhere/at/all.gguf"], "no file or folder"),
    (["--target", "unheard-of"], "not in the store"),
])  # fmt: skip
def test_what_cannot_be_is_refused(
    target: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert main([*arguments(target, text, tmp_path / "draft.gguf"), *more]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "draft.gguf").exists()


def test_without_torch_it_says_what_to_install(
    target: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torch" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert main(arguments(target, text, tmp_path / "draft.gguf")) == 1
    assert "pip install 'shoal[torch]'" in capsys.readouterr().err


def test_a_report_refuses_a_draft_of_another_vocabulary(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_checkpoint()
    tokens = list(other.tokenizer.metadata["tokenizer.ggml.tokens"])
    tokens[0], tokens[1] = tokens[1], tokens[0]
    metadata = {**other.tokenizer.metadata, "tokenizer.ggml.tokens": tokens}
    checkpoint = replace(other, tokenizer=replace(other.tokenizer, metadata=metadata))
    values = {name: floats(tensor) for name, tensor in other.weights.items()}
    write_draft(tmp_path / "other.gguf", checkpoint, other.config, values, "Q8_0")
    assert main(["draft", "report", "--target", str(target), "--draft", str(tmp_path / "other.gguf")]) == 2
    assert "another vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--length", "0"), ("--length", "17"), ("--temperature", "3")])
def test_a_report_refuses_rules_that_make_no_sense(
    target: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert main(["draft", "report", "--target", str(target), "--draft", str(target), option, value]) == 2
    assert option in capsys.readouterr().err
