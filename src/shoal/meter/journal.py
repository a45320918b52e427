"""Totals by day, kept in one small JSON file: what this machine's answers cost, for reports over weeks.

Written whole, to a new file that replaces the old one, so a crash loses at most the answers since the last save.
"""

from __future__ import annotations

import json
import os
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
    """`days` by ISO date, oldest first. `saved_at` is on the clock that `add` is given."""

    path: Path
    days: dict[str, Day] = field(default_factory=dict)
    saved_at: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Journal:
        """What was saved, or nothing yet. LocalError for a file that is not one of ours."""
        try:
            text = path.read_text()
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise LocalError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            return cls(path, {day: _day(row) for day, row in sorted(json.loads(text)["days"].items())})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LocalError(
                f"{path}: expected totals by day as `shoal up` writes them: {error}; move it away"
            ) from None

    def add(self, usage: Usage, wall: float) -> None:
        """Count one answer that ended at `wall`; saved now and then."""
        self.day(wall).add(usage)
        if wall - self.saved_at >= SAVE_EVERY_S or wall < self.saved_at:
            self.save(wall)

    def day(self, wall: float) -> Day:
        return self.days.setdefault(datetime.fromtimestamp(wall, UTC).date().isoformat(), Day())

    def save(self, wall: float) -> None:
        for old in sorted(self.days)[:-DAYS_KEPT]:
            del self.days[old]
        text = json.dumps({"days": {day: asdict(row) for day, row in self.days.items()}}, indent=1)
        fresh = self.path.with_suffix(".new")
        try:
            fresh.write_text(text)
            os.replace(fresh, self.path)
        except OSError as error:
            raise LocalError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.saved_at = wall

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


def _day(row: dict[str, object]) -> Day:
    known = {item.name for item in fields(Day)}
    if not isinstance(row, dict) or set(row) - known:
        raise ValueError(f"a day of {sorted(row)}")
    return Day(**row)  # type: ignore[arg-type]


def _value(measured: Measured | None) -> float:
    return measured.value if measured is not None else 0.0
