"""What the steps of a model's proof take on this machine, in this process, one after the other."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shoal.proof.artifacts import answer, open_artifact, prove, verify
from shoal.proof.artifacts_compile import CompileOptions, compile_model, samples_of

T = TypeVar("T")

STEPS = ("compile", "load", "witness", "prove", "verify")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Row:
    """peak_mb: of the process until then. size: bytes that the step leaves (the folder, the proof)."""

    step: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    size: int


def measure(model: Path, options: CompileOptions) -> list[Row]:
    """A row for each of STEPS."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        _timed(rows, "compile", lambda: compile_model(model, folder, options))
        rows[-1] = _with_size(rows[-1], sum(file.stat().st_size for file in folder.iterdir()))
        artifact = _timed(rows, "load", lambda: open_artifact(folder))
        inputs = samples_of(model, options)[0]
        _timed(rows, "witness", lambda: answer(artifact, inputs))
        made = _timed(rows, "prove", lambda: prove(artifact, inputs))
        rows[-1] = _with_size(rows[-1], len(made.proof))
        _timed(rows, "verify", lambda: verify(artifact, inputs, made.outputs, made.proof))
    return rows


def _timed(rows: list[Row], step: str, call: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 1e6
    rows.append(Row(step, *spent, peak, 0))
    return result


def _with_size(row: Row, size: int) -> Row:
    return Row(row.step, row.wall_s, row.cpu_s, row.peak_mb, size)
