"""Which method suits a task that has not been run: learned from tasks that were (after MetaInf, arXiv 2508.09194).

One small regression per method predicts its log-speed over that of the fallback. The decision is the fallback where
the task is unlike any known one, or where the predicted gain is within the error the regressions make on tasks they
have not seen. The fallback is the best single method; or the one in use anyway, unless another is clearly better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shoal.core.errors import LocalError
from shoal.plan.regressors import REGRESSORS, Predictor, RegressorName
from shoal.plan.table import Features, Table

FOLDS, MIN_TASKS = 5, 3
"""Folds of the estimate of error; tasks on which a method must have been measured to be predicted at all."""
CLEAR = 3.0
"""Standard errors; it is the best of many methods that is compared, so two would be crossed by chance too often."""

FAMILIAR = 1.5
"""A task is familiar up to this many times the largest distance between a known task and its nearest neighbour."""


@dataclass(frozen=True, slots=True)
class SelectorOptions:
    """caution: how many times the error on unseen tasks a predicted gain must exceed; 0 trusts every prediction.

    default  the method in use where nothing is learned: it stays the fallback unless another's mean gain over it is
             more than CLEAR standard errors. Among methods that tie on the known tasks, those cannot choose.
    """

    regressor: RegressorName = "stumps"
    caution: float = 0.5
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """method, and why in words. gain: predicted speed over the fallback's, as a share."""

    method: str
    why: str
    gain: float = 0.0


class Selector:
    """Immutable once made. LocalError when no method was measured on every task, so that none can be the fallback."""

    def __init__(self, table: Table, options: SelectorOptions | None = None) -> None:
        self._options = options or SelectorOptions()
        self._table = table
        self.fallback = fallback(table, self._options.default)
        self._centre, self._scale = table.features.mean(axis=0), _scale(table.features)
        self._known = self._standard(table.features)
        self._radius = FAMILIAR * _largest_gap(self._known)
        base = table.methods.index(self.fallback)
        self._gains = np.log(table.speeds / table.speeds[:, [base]])  # (tasks, methods), NaN: not measured
        comparable = np.isfinite(self._gains).sum(axis=0) >= MIN_TASKS
        names = [name for name, is_fit in zip(table.methods, comparable, strict=True) if is_fit]
        self._models = {name: self._fit(name) for name in names if name != self.fallback}

    def choose(self, features: Features) -> Choice:
        """The method to use for such a task."""
        asked = self._standard(self._table.vector(features))
        distance = float(np.linalg.norm(self._known - asked, axis=1).min())
        if distance > self._radius:
            return Choice(self.fallback, f"unlike anything measured (distance {distance:.1f} > {self._radius:.1f})")
        gains = {name: float(model(asked[None])[0]) for name, (model, _) in self._models.items()}
        sure = {name: gain - self._options.caution * self._models[name][1] for name, gain in gains.items()}
        name = max(sure, key=lambda item: sure[item], default=self.fallback)
        if name == self.fallback or sure[name] <= 0:
            return Choice(self.fallback, "nothing is predicted to be faster by more than the error of prediction")
        gain = float(np.expm1(gains[name]))
        return Choice(name, f"predicted {gain:+.0%} over {self.fallback}", gain)

    def predictions(self, features: Features) -> Mapping[str, float]:
        """Predicted log-speed of every method over the fallback's, which has 0."""
        asked = self._standard(self._table.vector(features))[None]
        return {self.fallback: 0.0, **{name: float(model(asked)[0]) for name, (model, _) in self._models.items()}}

    def _standard(self, features: np.ndarray) -> np.ndarray:
        return np.asarray((features - self._centre) / self._scale)

    def _fit(self, name: str) -> tuple[Predictor, float]:
        """The regression of one method, and its root mean square error on tasks left out in turns."""
        column = self._gains[:, self._table.methods.index(name)]
        seen = np.isfinite(column)
        features, targets, fit = self._known[seen], column[seen], REGRESSORS[self._options.regressor]
        fold = np.arange(len(targets)) % min(FOLDS, len(targets))
        errors = [
            fit(features[fold != number], targets[fold != number])(features[fold == number]) - targets[fold == number]
            for number in range(int(fold.max()) + 1)
        ]
        return fit(features, targets), float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def best_single(table: Table) -> str:
    """The method with the largest mean log-speed over all tasks, among those measured on every one."""
    whole = np.isfinite(table.speeds).all(axis=0)
    if not whole.any():
        raise LocalError("expected a method that was measured on every task, found none")
    means = np.where(whole, np.log(np.where(whole, table.speeds, 1.0)).mean(axis=0), -np.inf)
    return table.methods[int(np.argmax(means))]


def fallback(table: Table, default: str | None) -> str:
    """See `SelectorOptions.default`. A default that was not measured on every task cannot be compared with."""
    best = best_single(table)
    if default is None or default not in table.methods:
        return best
    gains = np.log(table.speeds[:, table.methods.index(best)] / table.speeds[:, table.methods.index(default)])
    if not np.isfinite(gains).all():
        return best
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return best if gains.mean() > CLEAR * error else default


def _scale(features: np.ndarray) -> np.ndarray:
    """Standard deviations; a feature that never varied counts as it is, so a new value of it is far away."""
    spread = features.std(axis=0)
    return np.where(spread > 0, spread, 1.0)


def _largest_gap(points: np.ndarray) -> float:
    """Largest distance from a point to its nearest other one; 0 for a single point."""
    if len(points) < 2:
        return 0.0
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).max())
