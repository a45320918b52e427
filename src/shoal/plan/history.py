"""Measured rows on disk, one JSON object a line, appended; the oldest are dropped when there are too many.

A line that a killed process left half written is skipped, and so is one that is no row: the history is advice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from shoal.core.errors import LocalError
from shoal.plan.table import Row, parse_row


class History:
    """At most twice `max_rows` on disk, of which the last `max_rows` are read. One writer at a time."""

    def __init__(self, path: Path, max_rows: int = 5000) -> None:
        self._path, self._max_rows = path, max_rows
        self._lines = sum(1 for _ in self._raw())
        self._is_torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")

    def append(self, row: Row) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._is_torn else "") + json.dumps(asdict(row), sort_keys=True) + "\n")
        self._is_torn = False
        self._lines += 1
        if self._lines > 2 * self._max_rows:
            self._compact()

    def rows(self) -> list[Row]:
        """The last `max_rows` rows, oldest first."""
        found: list[Row] = []
        for line in self._raw():
            try:
                found.append(parse_row(json.loads(line)))
            except (ValueError, LocalError):
                continue
        return found[-self._max_rows :]

    def _raw(self) -> Iterator[str]:
        if self._path.exists():
            with self._path.open(encoding="utf-8", errors="replace") as file:
                yield from file

    def _compact(self) -> None:
        kept = self.rows()
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text("".join(json.dumps(asdict(row), sort_keys=True) + "\n" for row in kept), encoding="utf-8")
        temporary.replace(self._path)
        self._lines = len(kept)
