"""A model goes from one machine's store to another's: two homes, real processes, a ticket between them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from served import environment, served, until

LOCAL = ("--mesh-host", "127.0.0.1", "--mesh-port", "0", "--no-lan")


def shoal(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments], env=environment(home), capture_output=True, text=True, timeout=100
    )


def test_a_stored_model_is_pulled_from_a_peer_that_shares(default_gguf: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    stored = shoal(one, "models", "pull", str(default_gguf), "--name", "theirs")
    assert stored.returncode == 0, stored.stderr
    with served(Path("none"), one, "--share", *LOCAL) as node:
        ticket = next(line for line in node.lines if "shoal join" in line).split("shoal join ")[1].split()[0]
        pull = ("models", "pull", "--from-mesh", "--ticket", ticket, "--mesh-host", "127.0.0.1", "--json")
        # found by the hash the catalogue pins, whatever they call it; the node needs a moment to read its store
        pulled = until(lambda: (done := shoal(two, *pull, "smollm2-135m")).returncode == 0 and done, 120)
        found = json.loads(pulled.stdout)
        assert (found["source"], found["file"]) == ("smollm2-135m", default_gguf.name)
        assert Path(found["path"]).read_bytes() == default_gguf.read_bytes()
        nobody = shoal(two, *pull, "no-such-model")
        assert nobody.returncode == 1
        assert "shares 'no-such-model'" in nobody.stderr
    alone = shoal(tmp_path / "three", "models", "pull", "x", "--from-mesh")
    assert "there is no mesh to ask" in alone.stderr
