"""One step of a command-line tool: run, timed out if need be, with what it took from the kernel's own accounts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Step:
    """cpu_s, peak_mb: of the process and those it waited for. is_done: False if it was ended at the limit."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    is_done: bool
    output: str


def run(
    command: Sequence[str | Path], limit_s: float, folder: Path, environment: Mapping[str, str] | None = None
) -> Step:
    """RuntimeError with the end of what it said if it fails by itself."""
    log = folder / "step.log"
    began = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(map(str, command)), cwd=folder, stdout=file, stderr=file, env=dict(environment or os.environ),
            start_new_session=True,
        )  # fmt: skip
    over = threading.Event()
    timer = threading.Timer(limit_s, _end, (process.pid, over))
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        _end(process.pid, over)
        raise
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    wall, text = time.perf_counter() - began, log.read_text(errors="replace")
    if process.returncode and not over.is_set():
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}: {text[-1500:]}")
    if over.is_set():
        print(f"{Path(str(command[0])).name}: ended after the limit of {limit_s:.0f} s", file=sys.stderr)
    return Step(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3, not over.is_set(), text)


def _end(pid: int, over: threading.Event) -> None:
    over.set()
    os.killpg(pid, signal.SIGKILL)
