"""What takes how long: wall and processor time, and this process' peak of memory so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def peak_gb() -> float:
    """Of this process so far. `getrusage` would begin with the peak of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e9


class Clock:
    """Rows of what was timed, in order."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    @contextmanager
    def phase(self, name: str, within: str = "") -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        row = {"phase": name, "within": within, "wall_s": time.perf_counter() - wall,
               "cpu_s": time.process_time() - cpu, "peak_gb": peak_gb()}  # fmt: skip
        self.rows.append(row)

    def watch(self, module: Any, function: str, name: str) -> None:
        """Every call of module.function from now on is a row within the proof."""
        plain: Callable[..., Any] = getattr(module, function)

        def timed(*given: Any, **named: Any) -> Any:
            with self.phase(name, "prove"):
                return plain(*given, **named)

        setattr(module, function, timed)
