"""`shoal up` as its users run it: a process of its own on a real socket, told apart only by what it prints and answers.

Nothing here sleeps to wait for something: a start waits for the line that names the address, an end for the process,
and `until` asks the server again and again for a condition, with a bound.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import openai

READY = re.compile(r"serving (.+) at (http://\S+) \(console\)")
START_S = 120
"""Reading the weights takes a second or two, compiling the kernels some more; the rest is for a busy machine."""
END_S = 60


@dataclass(slots=True)
class Served:
    """A running `shoal up`. `lines` grows while it runs; `url` has no slash at its end."""

    process: subprocess.Popen[str]
    model: str = ""
    url: str = ""
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", **{"max_retries": 0, "timeout": 120} | options)

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        options = {"max_retries": 0, "timeout": 120} | options
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", **options)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/v1/stats", timeout=30).json()
        return found

    def post(self, path: str, body: Any, timeout_s: float = 120) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=timeout_s)

    def end(self, kind: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code (negative: killed by that signal)."""
        self.process.send_signal(kind)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(END_S)
        if self.reader is not None:
            self.reader.join(END_S)
        return code

    def printed(self) -> str:
        return "".join(self.lines)


@contextmanager
def served(model: Path, home: Path, *flags: str) -> Iterator[Served]:
    """`shoal up --model model --port 0 ...flags`, ready when the block begins, gone when it ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", "up", "--model", str(model), *_port(flags), *flags],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Served(process)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            server.wait()
        except subprocess.TimeoutExpired:
            process.kill()
            server.wait()
        if process.stdout is not None:
            process.stdout.close()


def environment(home: Path) -> dict[str, str]:
    """This process's, without its own Shoal's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOAL_", "COV_"))}
    return kept | {"SHOAL_HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def until(condition: Callable[[], Any], bound_s: float = 60) -> Any:
    """What `condition` gives once that is true; a failure if it never is. Asks as fast as the answers come."""
    ends_at = time.monotonic() + bound_s
    while time.monotonic() < ends_at:
        if found := condition():
            return found
    raise AssertionError(f"still not true after {bound_s} s")


def assert_idle(server: Served) -> None:
    """Nothing of any request is left: no sequence, and no block but those the prefix cache may reuse."""

    def is_idle() -> bool:
        stats = server.stats()
        return (stats["num_running"], stats["num_waiting"], stats["blocks_used"]) == (0, 0, 0)

    until(is_idle)


def _port(flags: tuple[str, ...]) -> tuple[str, ...]:
    return () if "--port" in flags else ("--port", "0")


def _wait_until_ready(server: Served) -> None:
    ready: Queue[re.Match[str] | None] = Queue()

    def read() -> None:
        assert server.process.stdout is not None
        for line in server.process.stdout:
            server.lines.append(line)
            if found := READY.search(line):
                ready.put(found)
        ready.put(None)

    server.reader = threading.Thread(target=read, daemon=True)
    server.reader.start()
    found = ready.get(timeout=START_S)
    if found is None:
        raise AssertionError(f"shoal up ended with {server.process.wait(END_S)} and said:\n{server.printed()}")
    server.model, server.url = found[1], found[2]
