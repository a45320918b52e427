"""What is said to the person: results to stdout, everything else to stderr, nothing that output of a model could spoil.

What this does not protect against: a model's text that pretends, in plain characters, to be Shoal's own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from shoal.core.units import format_size
from shoal.models.digest import Progress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str) -> None:
    """A line for the person, out of the way of pipes."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def write(text: str) -> None:
    """Part of a result. Control characters reach files and pipes, never a terminal, which would obey them."""
    sys.stdout.write(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def write_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for people: fitted to a terminal, or as wide as its contents for a pipe."""
    if not sys.stdout.isatty():
        widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [columns, *rows]
        )
        sys.stdout.write("".join(line.rstrip() + "\n" for line in lines))
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar per phase on a terminal; elsewhere one line per phase, so that a log stays readable."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description:>9}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(phase: str, done_bytes: int, total_bytes: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total_bytes)
            bars.update(tasks[phase], completed=done_bytes)

        yield report


def _lines() -> Progress:
    seen: set[str] = set()

    def report(phase: str, done_bytes: int, total_bytes: int | None) -> None:
        if phase not in seen:
            seen.add(phase)
            say(f"{phase} ({format_size(total_bytes)})" if total_bytes else phase)

    return report
