"""Real nodes in the lab's namespaces: started, looked at and asked as their users would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natlab import NatLab

READY = re.compile(r"serving .+ at (http://\S+) \(console\)")
TICKET = re.compile(r"shoal join (shoal1\S+)")
START_S = 60.0
ASK = """
import json, sys, urllib.request
body = sys.stdin.buffer.read() or None
headers = {"Content-Type": "application/json"} if body else {}
with urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, headers), timeout=30) as answer:
    sys.stdout.write(answer.read().decode())
"""


@dataclass(slots=True)
class ChatNode:
    """A `shoal up` or `shoal join` in the namespace of `host`."""

    lab: NatLab
    host: str
    home: Path
    process: subprocess.Popen[bytes]
    url: str = ""

    def log(self) -> str:
        return (self.home / "log").read_text()

    def ticket(self) -> str:
        found = TICKET.search(self.log())
        assert found is not None, self.log()
        return found[1]

    def get(self, path: str) -> dict[str, Any]:
        return self._ask(path, None)

    def chat(self, model: str, text: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 40, "seed": 7}
        answer = self._ask("/v1/chat/completions", json.dumps(body | {"ignore_eos": True}))
        return str(answer["choices"][0]["message"]["content"])

    def peer(self, other: str) -> dict[str, Any]:
        """What this node shows of a peer; empty if nothing."""
        peers = self.get("/v1/mesh")["peers"]
        return next((peer for peer in peers if peer["id"] == other), {})

    def shoal(self, *arguments: str) -> str:
        """What a command of this node's user prints."""
        command = ["env", f"SHOAL_HOME={self.home}", sys.executable, "-m", "shoal", *arguments, "--url", self.url]
        return self.lab.inside(self.host, *command)

    def _ask(self, path: str, body: str | None) -> dict[str, Any]:
        told = self.lab.inside(self.host, sys.executable, "-c", ASK, f"{self.url}{path}", given=body or "")
        found: dict[str, Any] = json.loads(told)
        return found


@contextmanager
def node(lab: NatLab, host: str, home: Path, *arguments: str) -> Iterator[ChatNode]:
    """Running, not yet asked whether it is ready; gone afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    command = ["ip", "netns", "exec", lab.ns(host), sys.executable, "-m", "shoal", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    environment = kept | {"SHOAL_HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield ChatNode(lab, host, home, process)
    finally:
        process.kill()
        process.wait()


def ready(found: ChatNode) -> ChatNode:
    until(lambda: READY.search(found.log()) or found.process.poll() is not None, START_S, found.log)
    serving = READY.search(found.log())
    assert serving is not None, found.log()
    found.url = serving[1]
    return found


def until(condition: Callable[[], Any], bound_s: float, why: Callable[[], object]) -> Any:
    ends_at = time.monotonic() + bound_s
    while time.monotonic() < ends_at:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"still not so after {bound_s} s: {why()}")
