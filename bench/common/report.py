"""Medians, the table for people and the one JSON line for machines."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """What this machine is, and the ceilings figures are read against."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    cores = len(__import__("os").sched_getaffinity(0))
    return {"cpu": model, "cores": cores, "memory_read_gb_s": round(memory_read_gb_s(cores), 1)}


def memory_read_gb_s(threads: int) -> float:
    """Best of five passes over 256 MB by each thread, all at once."""
    arrays = [np.ones(32_000_000) for _ in range(threads)]
    best = 0.0
    for _ in range(5):
        workers = [threading.Thread(target=array.max) for array in arrays]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, sum(array.nbytes for array in arrays) / (time.perf_counter() - began) / 1e9)
    return best


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )


def finish(name: str, rows: Sequence[Mapping[str, Any]], ratios: Mapping[str, float], about: Mapping[str, Any]) -> None:
    """The last line of every benchmark. Ratios: larger is better for Shoal."""
    line = {"bench": name, "commit": commit(), "machine": about, "rows": list(rows),
            "ratios": {key: round(value, 3) for key, value in ratios.items()}}  # fmt: skip
    print(json.dumps(line))
