"""A model goes from one machine's store to another's: homes of their own, real processes, a ticket between them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from served import Served, environment, served, until

from shoal.models.tiny_file import write_tiny

LOCAL = ("--mesh-host", "127.0.0.1", "--mesh-port", "0", "--no-lan")
NONE = Path("none")


def shoal(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments], env=environment(home), capture_output=True, text=True, timeout=100
    )


def ticket_of(node: Served) -> str:
    return next(line for line in node.lines if "shoal join" in line).split("shoal join ")[1].split()[0]


def view(node: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{node.url}/v1/mesh").json()
    return found


def is_there(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether it was pulled. A node needs a moment to read its store: until then nobody has it."""
    assert done.returncode == 0 or "no peer found shares" in done.stderr, done.stderr
    return done.returncode == 0


def test_a_stored_model_is_pulled_and_only_what_is_shared_by_a_node_of_its_own_or_the_one_that_runs(
    default_gguf: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    write_tiny(tmp_path / "mine.gguf")
    for path, name in ((default_gguf, "theirs"), (tmp_path / "mine.gguf", "mine")):
        stored = shoal(one, "models", "pull", str(path), "--name", name)
        assert stored.returncode == 0, stored.stderr
    pull = ("models", "pull", "--from-mesh", "--mesh-host", "127.0.0.1", "--json", "--ticket")
    with served(NONE, one, "--share", *LOCAL) as node:
        ticket = ticket_of(node)
        # found by the hash the catalogue pins, whatever they call it
        pulled = until(lambda: is_there(done := shoal(two, *pull, ticket, "smollm2-135m")) and done, 120)
        found = json.loads(pulled.stdout)
        assert (found["source"], found["file"]) == ("smollm2-135m", default_gguf.name)
        assert Path(found["path"]).read_bytes() == default_gguf.read_bytes()
        refused = shoal(two, *pull, ticket, "mine")
        assert refused.returncode == 1, "it is in the store there, and was not named by --share-model"
        assert "shares 'mine'" in refused.stderr
        given = view(node)
        assert given["transfers_ended"] == {"up done": 1}
        assert given["transferred_bytes"] == {"up": default_gguf.stat().st_size}
        assert [(item["name"], item["direction"]) for item in given["transfers"]] == [("theirs", "up")]
        with served(NONE, two, "--ticket", ticket, *LOCAL) as here:
            again = shoal(two, *pull[:-1], "smollm2-135m", "--name", "again")
            assert Path(json.loads(again.stdout)["path"]).read_bytes() == default_gguf.read_bytes(), again.stderr
            (shown,) = view(here)["transfers"]
            assert (shown["direction"], shown["outcome"], shown["peers"]) == ("down", "done", [given["id"]])
            assert [item["id"] for item in view(here)["peers"]] == [given["id"]], "the node that runs did the pulling"
    with served(NONE, one, "--ticket", ticket, *LOCAL) as node:
        private = shoal(two, *pull, ticket_of(node), "smollm2-135m", "--name", "third")
        assert private.returncode == 1, "a node that shares with nobody gives nobody its files"
        assert "no peer found shares 'smollm2-135m'" in private.stderr
        assert view(node)["transferred_bytes"] == {}


def test_without_a_mesh_there_is_nobody_to_ask(tmp_path: Path) -> None:
    alone = shoal(tmp_path / "three", "models", "pull", "x", "--from-mesh")
    assert "there is no mesh to ask" in alone.stderr
