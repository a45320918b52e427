"""Three small regressions of ours: from features to one number. A few hundred tasks, a dozen features; numpy only.

Each is a function that takes standardised features (tasks, d) and targets (tasks,), and returns a predictor of
(n, d) -> (n,). All are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

Predictor = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray], Predictor]
RegressorName = Literal["ridge", "neighbours", "stumps"]

NEIGHBOURS, RIDGE_PENALTY = 3, 1.0
ROUNDS, LEARNING_RATE, MIN_LEAF = 60, 0.2, 2


def fit_ridge(features: np.ndarray, targets: np.ndarray) -> Predictor:
    """Least squares with an L2 penalty on everything but the intercept."""
    mean = targets.mean()
    gram = features.T @ features + RIDGE_PENALTY * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features.T @ (targets - mean))
    return lambda asked: np.asarray(asked @ weights + mean)


def fit_neighbours(features: np.ndarray, targets: np.ndarray) -> Predictor:
    """Mean over the nearest tasks, weighted by inverse distance."""
    count = min(NEIGHBOURS, len(targets))

    def predict(asked: np.ndarray) -> np.ndarray:
        distances = np.linalg.norm(asked[:, None, :] - features[None, :, :], axis=2)  # (n, tasks)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :count]
        weights = 1.0 / (np.take_along_axis(distances, nearest, axis=1) + 1e-6)
        return np.asarray((weights * targets[nearest]).sum(axis=1) / weights.sum(axis=1))

    return predict


def fit_stumps(features: np.ndarray, targets: np.ndarray) -> Predictor:
    """Gradient boosting of squared error with trees of one split."""
    base, residual = targets.mean(), targets - targets.mean()
    stumps: list[tuple[int, float, float, float]] = []
    for _ in range(ROUNDS):
        stump = _best_stump(features, residual)
        if stump is None:
            break
        stumps.append(stump)
        residual = residual - _apply(stump, features)

    def predict(asked: np.ndarray) -> np.ndarray:
        return np.asarray(base + sum((_apply(stump, asked) for stump in stumps), np.zeros(len(asked))))

    return predict


def _best_stump(features: np.ndarray, residual: np.ndarray) -> tuple[int, float, float, float] | None:
    """(feature, threshold, step at or below it, step above it) that lowers the squared error most; None: no split."""
    best, best_gain = None, 1e-12
    total, count = residual.sum(), len(residual)
    for column in range(features.shape[1]):
        order = np.argsort(features[:, column], kind="stable")
        values, sums = features[order, column], np.cumsum(residual[order])
        cuts = np.flatnonzero(values[1:] > values[:-1]) + 1  # so many tasks on the left
        cuts = cuts[(cuts >= MIN_LEAF) & (cuts <= count - MIN_LEAF)]
        if not len(cuts):
            continue
        left = sums[cuts - 1]
        gains = left**2 / cuts + (total - left) ** 2 / (count - cuts) - total**2 / count
        at = int(np.argmax(gains))
        if gains[at] > best_gain:
            cut, best_gain = int(cuts[at]), float(gains[at])
            steps = left[at] / cut, (total - left[at]) / (count - cut)
            threshold = float(values[cut - 1] + values[cut]) / 2
            best = (column, threshold, float(LEARNING_RATE * steps[0]), float(LEARNING_RATE * steps[1]))
    return best


def _apply(stump: tuple[int, float, float, float], features: np.ndarray) -> np.ndarray:
    column, threshold, below, above = stump
    return np.where(features[:, column] <= threshold, below, above)


REGRESSORS: dict[RegressorName, Fit] = {"ridge": fit_ridge, "neighbours": fit_neighbours, "stumps": fit_stumps}
