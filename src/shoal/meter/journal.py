"""Totals by day, kept in one small JSON file: what this machine's answers cost, for reports over weeks.

Written whole, to a new file that replaces the old one, so a crash loses at most the answers since the last save.
Several processes of one home add to one file: each adds what is new to what is there, one at a time.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from shoal.core.errors import LocalError
from shoal.core.usage import Measured, Usage

SAVE_EVERY_S = 30.0
DAYS_KEPT = 3700


@dataclass(slots=True)
class Day:
    """Sums over the answers that ended on one day (UTC). idle_j: used while nobody was served."""

    requests: int = 0
    tokens: int = 0
    energy_j: float = 0.0
    idle_j: float = 0.0
    water_l: float = 0.0
    carbon_g: float = 0.0
    cost_usd: float = 0.0
    sources: list[str] = field(default_factory=list)

    def add(self, usage: Usage) -> None:
        self.requests += 1
        self.tokens += usage.prompt_tokens + usage.completion_tokens
        self.energy_j += _value(usage.energy_j)
        self.water_l += _value(usage.water_l)
        self.carbon_g += _value(usage.carbon_g)
        self.cost_usd += _value(usage.cost_usd)
        if usage.energy_j is not None and usage.energy_j.source not in self.sources:
            self.sources.append(usage.energy_j.source)


@dataclass(slots=True)
class Journal:
    """`days` by ISO date, oldest first; `fresh` what of them is not on the disk. `saved_at` is on `add`'s clock."""

    path: Path
    days: dict[str, Day] = field(default_factory=dict)
    saved_at: float = 0.0
    fresh: dict[str, Day] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """What was saved, or nothing yet. LocalError for a file that is not one of ours."""
        return cls(path, _read(path))

    def add(self, usage: Usage, wall: float) -> None:
        """Count one answer that ended at `wall`; saved now and then."""
        for days in (self.days, self.fresh):
            days.setdefault(_date(wall), Day()).add(usage)
        if wall - self.saved_at >= SAVE_EVERY_S or wall < self.saved_at:
            self.save(wall)

    def idle(self, joules: float, wall: float) -> None:
        """Count what was used while nobody was served."""
        for days in (self.days, self.fresh):
            days.setdefault(_date(wall), Day()).idle_j += joules

    def save(self, wall: float) -> None:
        """Add what is new to what is on the disk now. LocalError where that cannot be."""
        try:
            with _alone(self.path):
                days = _read(self.path)
                for day, row in self.fresh.items():
                    _sum(days.setdefault(day, Day()), row)
                self.days = {day: days[day] for day in sorted(days)[-DAYS_KEPT:]}
                _write(self.path, self.days)
        except OSError as error:
            raise LocalError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.fresh, self.saved_at = {}, wall

    def between(self, first: str, last: str) -> Day:
        """The sum of the days from `first` to `last`, both included, as ISO dates."""
        total = Day()
        for day, row in self.days.items():
            if first <= day <= last:
                _sum(total, row)
        return total


def _sum(total: Day, row: Day) -> None:
    for name in ("requests", "tokens", "energy_j", "idle_j", "water_l", "carbon_g", "cost_usd"):
        setattr(total, name, getattr(total, name) + getattr(row, name))
    total.sources += [source for source in row.sources if source not in total.sources]


def _date(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).date().isoformat()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process writes. The lock is the system's: it goes with the process that held it."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, days: dict[str, Day]) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(json.dumps({"days": {day: asdict(row) for day, row in days.items()}}, indent=1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _read(path: Path) -> dict[str, Day]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return {day: _day(row) for day, row in sorted(json.loads(text)["days"].items())}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LocalError(f"{path}: expected totals by day as `shoal up` writes them: {error}; move it away") from None


def _day(row: dict[str, object]) -> Day:
    """ValueError for anything but sums: what is not would fail at the next answer, or spoil all of them."""
    known = {item.name for item in fields(Day)}
    if not isinstance(row, dict) or set(row) - known:
        raise ValueError(f"a day of {sorted(row)}")
    sources = row.get("sources", [])
    if not all(_is_sum(value) for name, value in row.items() if name != "sources"):
        raise ValueError("a day with sums that are no finite numbers")
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise ValueError("a day whose sources are no texts")
    return Day(**row)  # type: ignore[arg-type]


def _is_sum(value: object) -> bool:
    return type(value) in (int, float) and isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _value(measured: Measured | None) -> float:
    return measured.value if measured is not None else 0.0
