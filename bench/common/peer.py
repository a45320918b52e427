"""A peer in a process of its own: one JSON line in, one out; idle between turns."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

WORKERS = Path(__file__).parent.parent / "workers"


class Peer:
    """`python workers/<script>.py`, alive until closed. `started_at` is when it was spawned (perf_counter)."""

    def __init__(self, name: str, python: Path, script: str, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.started_at = time.perf_counter()
        self._log = (WORKERS.parent / ".envs" / f"{name}.log").open("w")
        self._process = subprocess.Popen(
            [python, WORKERS / script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=environment,
        )  # fmt: skip

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._log.close()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The worker's answer. RuntimeError with where its log is when it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died during {command!r}; see {self._log.name}")
        answer: dict[str, Any] = json.loads(line)
        return answer
