"""Progress of work that is counted in steps: a bar on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shoal.node.terminal import say

LINE_EVERY_S = 30.0

Steps = Callable[[str, int, int, str], None]
"""(phase, steps done, steps in all, a few words)."""


@contextmanager
def step_bar() -> Iterator[Steps]:
    """A `Steps` for as long as the block lasts."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bars(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(phase: str, done: int, total: int, words: str) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total, words=words)
            bars.update(tasks[phase], completed=done, words=words)

        yield report


def _lines() -> Steps:
    said_at: dict[str, float] = {}

    def report(phase: str, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        if done >= total or now - said_at.get(phase, 0.0) > LINE_EVERY_S:
            said_at[phase] = now
            say(f"{phase} {done} of {total}{f', {words}' if words else ''}")

    return report
