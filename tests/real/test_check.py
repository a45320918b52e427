"""A peer's answer is audited in idle time by a node with the same weights, and checked again by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from served import Served, environment, served, until

LOCAL = ("--mesh-host", "127.0.0.1", "--mesh-port", "0", "--no-lan")


def check(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", "check", *arguments],
        env=environment(home), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def ticket_of(node: Served) -> str:
    return next(line.split("shoal join ")[1] for line in node.lines if "shoal join shoal1" in line).strip()


def verdicts(node: Served, name: str) -> list[str]:
    found: list[str] = httpx.get(f"{node.url}/v1/receipts/{name}").json()["verdicts"]
    return found


@pytest.fixture
def twin_home(home: Path, tmp_path: Path) -> Path:
    (home / "kernels").mkdir(exist_ok=True)
    (tmp_path / "kernels").symlink_to(home / "kernels")
    return tmp_path


def test_a_peers_answer_is_audited_and_checked(default_gguf: Path, home: Path, twin_home: Path) -> None:
    """The twin serves the same weights by another name, so that it asks the peer and can still run the answer again."""
    twin = twin_home / "twin.gguf"
    shutil.copyfile(default_gguf, twin)
    audited = ("--audit", "fingerprint:1", "--receipts", "always")
    with (
        served(default_gguf, home, "--share", *LOCAL) as peer,
        served(twin, twin_home, "--ticket", ticket_of(peer), *audited, *LOCAL) as node,
    ):
        assert peer.model != node.model
        until(lambda: peer.model in [card.id for card in node.client().models.list()])
        messages = [{"role": "user", "content": "What do bees do all day?"}]
        asked = {"model": peer.model, "messages": messages, "max_tokens": 40, "receipt": True, "seed": 5}
        answer = node.post("/v1/chat/completions", asked).json()
        until(lambda: verdicts(node, answer["id"]))
        [words] = verdicts(node, answer["id"])
        assert words.startswith("passed the fingerprint check: every number agrees to the bit"), words
        metrics = httpx.get(f"{node.url}/metrics").text
        assert 'shoal:audits_total{outcome="pass"} 1.0' in metrics
    file = twin_home / "answer.json"
    file.write_text(json.dumps(answer))
    passed = check(twin_home, str(file), "--model", str(twin), "--json")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    [verdict] = json.loads(passed.stdout)
    assert verdict["findings"]["drift"]["measured"] == 0.0
    answer["choices"][0]["message"]["content"] += "!"
    file.write_text(json.dumps(answer))
    altered = check(twin_home, str(file), "--model", str(twin))
    assert (altered.returncode, "not the one that was signed" in altered.stdout) == (1, True)
    missing = check(twin_home, str(file), "--tier", "distribution", "--model", str(twin))
    assert missing.returncode == 2
    assert "cannot check a chat answer by distribution; it can by: fingerprint" in missing.stderr


def test_what_is_no_receipt_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("{}")
    refused = check(tmp_path, str(tmp_path / "empty.json"))
    assert refused.returncode == 2
    assert "found none" in refused.stderr
