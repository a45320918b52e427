"""What was measured: a row per run, and the same as a matrix of tasks by methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.core.errors import LocalError

Features = Mapping[str, float]
"""Numbers known before a request runs: of the request, the model and the hardware. A missing one counts as 0."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run: a task's features, the method it was given, and its speed (tokens/s, larger is better)."""

    features: dict[str, float]
    method: str
    speed: float


def parse_row(found: Any) -> Row:
    """A row out of untrusted JSON. LocalError says what is wrong with it."""
    match found:
        case {"features": dict(features), "method": str(method), "speed": int() | float() as speed}:
            numbers = [speed, *features.values()]
            if all(isinstance(x, int | float) and math.isfinite(x) for x in numbers) and speed > 0:
                return Row({str(name): float(value) for name, value in features.items()}, method, float(speed))
    raise LocalError(f"expected features, a method and a positive speed, all finite, found {found!r:.120}")


@dataclass(frozen=True, slots=True)
class Table:
    """features (tasks, len(names)) float64; speeds (tasks, len(methods)), NaN where nothing was measured."""

    names: tuple[str, ...]
    methods: tuple[str, ...]
    features: np.ndarray
    speeds: np.ndarray

    def vector(self, features: Features) -> np.ndarray:
        """(len(names),), in the table's order. Features the table does not know are left out."""
        return np.array([features.get(name, 0.0) for name in self.names])

    def without(self, left_out: np.ndarray) -> Table:
        """The tasks where the mask (tasks,) is false."""
        return Table(self.names, self.methods, self.features[~left_out], self.speeds[~left_out])


def tabulate(rows: Sequence[Row]) -> Table:
    """Rows of equal features are one task; several runs of one method there give their median. LocalError if none."""
    if not rows:
        raise LocalError("expected at least one measured row, found none")
    names = tuple(sorted({name for row in rows for name in row.features}))
    methods = tuple(sorted({row.method for row in rows}))
    runs: dict[tuple[float, ...], dict[str, list[float]]] = {}
    for row in rows:
        task = tuple(row.features.get(name, 0.0) for name in names)
        runs.setdefault(task, {}).setdefault(row.method, []).append(row.speed)
    speeds = [[_median(found.get(method, [])) for method in methods] for found in runs.values()]
    return Table(names, methods, np.array(list(runs)).reshape(len(runs), len(names)), np.array(speeds))


def coarse(features: Features) -> dict[str, float]:
    """About the same features, the same class: they are logarithms and shares (see `features`), to the nearest half."""
    return {name: round(2 * value) / 2 for name, value in features.items()}


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
