"""One step of a command-line tool: run, timed out if need be, with what it took from the kernel's own accounts.

A small launcher (this file, run) starts the command: a process' peak memory begins with that of whoever started it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
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
    log, words = folder / "step.log", list(map(str, command))
    launcher = [sys.executable, "-S", "-E", __file__, str(limit_s), str(log), *words]
    told = subprocess.run(launcher, cwd=folder, capture_output=True, text=True, env=environment, check=True).stdout
    found, text = json.loads(told), log.read_text(errors="replace")
    if found["code"] and found["is_done"]:
        raise RuntimeError(f"{' '.join(words)} ended with {found['code']}: {text[-1500:]}")
    if not found["is_done"]:
        print(f"{Path(words[0]).name}: ended after the limit of {limit_s:.0f} s", file=sys.stderr)
    return Step(found["wall_s"], found["cpu_s"], found["peak_mb"], found["is_done"], text)


def launch(limit_s: float, log: str, command: list[str]) -> dict[str, float | bool]:
    began, is_done = time.perf_counter(), True
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            is_done = False
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_s": time.perf_counter() - began, "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1e3, "is_done": is_done, "code": process.returncode}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(launch(float(sys.argv[1]), sys.argv[2], sys.argv[3:])))
