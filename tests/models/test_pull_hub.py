"""Pulling from a model hub, against one that runs in this process and speaks as much of its API as is asked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shoal.core.errors import BadConfig
from shoal.models.catalogue import HubSource
from shoal.models.pull_hub import _choose
from shoal.models.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    "pytorch_model.bin": b"a pickle",
    "sub/tiny.Q8_0.gguf": GGUF,
}


@dataclass(slots=True)
class Hub:
    """`lies` are files whose announced SHA-256 is not theirs."""

    url: str = ""
    lies: set[str] = field(default_factory=set)
    served: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/org/tiny"):
                return self.answer(json.dumps(_info(state)).encode())
            name = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
            if name in FILES:
                state.served.append(name)
                return self.answer(FILES[name])
            return self.answer(b'{"error": "Repository not found"}', 404)

        def answer(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def _info(hub: Hub) -> dict[str, object]:
    siblings = []
    for name, data in FILES.items():
        digest = "00" * 32 if name in hub.lies else hashlib.sha256(data).hexdigest()
        large = {"lfs": {"sha256": digest, "size": len(data), "pointerSize": 130}} if not name.endswith(".json") else {}
        siblings.append({"rfilename": name, "size": len(data), "blobId": "0" * 40, **large})
    return {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings}


def pull(hub: Hub, home: Path, source: str) -> subprocess.CompletedProcess[str]:
    """The command itself: `huggingface_hub` reads its settings when it is imported."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "SHOAL_HOME": str(home), "NO_PROXY": "*"}
    command = [sys.executable, "-m", "shoal", "models", "pull", source]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_gguf_file_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    done = pull(hub, tmp_path, "hf:org/tiny:sub/tiny.Q8_0.gguf")
    assert done.returncode == 0, done.stderr
    assert Store(tmp_path).resolve("tiny.q8_0").read_bytes() == GGUF
    assert Store(tmp_path).resolve("hf:org/tiny:sub/tiny.Q8_0.gguf") == Store(tmp_path).resolve("tiny.q8_0")


def test_a_folder_comes_without_its_pickles(hub: Hub, tmp_path: Path) -> None:
    done = pull(hub, tmp_path, "hf:org/tiny")
    assert done.returncode == 0, done.stderr
    folder = Store(tmp_path).resolve("tiny")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert "pytorch_model.bin" not in hub.served


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.lies.add("sub/tiny.Q8_0.gguf")
    done = pull(hub, tmp_path, "hf:org/tiny:sub/tiny.Q8_0.gguf")
    assert done.returncode == 1
    assert "sha256: expected " + "00" * 32 in done.stderr
    assert Store(tmp_path).records() == []


def test_a_repository_that_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    done = pull(hub, tmp_path, "hf:org/none")
    assert done.returncode == 1
    assert "hf:org/none@main does not exist, or is private" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_cannot_be_reached_is_one_clear_message(tmp_path: Path) -> None:
    done = pull(Hub("http://127.0.0.1:1"), tmp_path, "hf:org/tiny")
    assert done.returncode == 1
    assert "the model hub cannot be reached for hf:org/tiny@main" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "names", "message"),
    [
        (HubSource("o/r", "b.gguf"), ["a.gguf", "c.gguf"], r"has no GGUF file 'b\.gguf'; it has: a\.gguf, c\.gguf"),
        (HubSource("o/r", "x.bin"), ["x.bin"], r"has no GGUF file 'x\.bin'; it has: none"),
        (HubSource("o/r"), ["a.gguf", "config.json"], r"no safetensors; name a GGUF file of it: a\.gguf"),
    ],
)
def test_a_repository_without_what_is_wanted_says_what_it_has(
    source: HubSource, names: list[str], message: str
) -> None:
    with pytest.raises(BadConfig, match=message):
        _choose(source, names)
