"""Pairwise verdicts -> one score each: the Bradley-Terry model, fitted by minorisation-maximisation.

P(i beats j) = s_i / (s_i + s_j). Zermelo's iteration s_i <- W_i / sum_j n_ij / (s_i + s_j) raises the likelihood with
every step (Hunter 2004, Annals of Statistics 32:384). Half a win and half a loss, spread over all others, are added to
each answer: then a ranking exists also where somebody won or lost every time, or was never compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PRIOR = 0.5
TOLERANCE = 1e-9
MAX_STEPS = 10_000
Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Fit:
    """Natural logarithms of strengths, mean 0, and half widths of their 95 % intervals; float64, shape (n,)."""

    scores: np.ndarray
    half_widths: np.ndarray
    steps: int

    def order(self) -> tuple[int, ...]:
        """Best first; equal scores by number."""
        return tuple(int(i) for i in np.argsort(-self.scores, kind="stable"))

    def probability(self, first: int, second: int) -> float:
        """That `first` is judged better than `second`."""
        return float(1.0 / (1.0 + np.exp(self.scores[second] - self.scores[first])))


def fit(wins: np.ndarray, prior: float = PRIOR) -> Fit:
    """wins[i, j] >= 0: weight of the verdicts that i beats j, shape (n, n), ties half each. ValueError otherwise."""
    table = _checked(wins)
    count = len(table)
    if count < 2:
        return Fit(np.zeros(count), np.zeros(count), 0)
    table = table + prior / (count - 1) * (1.0 - np.eye(count))
    games, won = table + table.T, table.sum(1)
    scores, steps, change = np.zeros(count), 0, np.inf
    while change > TOLERANCE and steps < MAX_STEPS:
        before = scores
        scores = _step(scores, games, won)
        change, steps = np.max(np.abs(scores - before)), steps + 1
    return Fit(scores, _half_widths(scores, games), steps)


def _step(scores: np.ndarray, games: np.ndarray, won: np.ndarray) -> np.ndarray:
    """One pass over the answers, each using the newest strengths of the others (Gauss-Seidel), then mean 0."""
    strengths = np.exp(scores)
    for i in range(len(strengths)):
        strengths[i] = won[i] / (games[i] / (strengths[i] + strengths)).sum()
    logs = np.log(strengths)
    return np.asarray(logs - logs.mean())


def _half_widths(scores: np.ndarray, games: np.ndarray) -> np.ndarray:
    """From the Fisher information of the scores; only their differences are known, so its inverse is the pseudo one."""
    p = 1.0 / (1.0 + np.exp(scores[None, :] - scores[:, None]))
    info = -games * p * (1 - p)
    np.fill_diagonal(info, 0.0)
    np.fill_diagonal(info, -info.sum(1))
    covariance = np.linalg.pinv(info, hermitian=True)
    return np.asarray(Z_95 * np.sqrt(np.maximum(0.0, np.diag(covariance))))


def _checked(wins: np.ndarray) -> np.ndarray:
    table = np.asarray(wins, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"expected a square table of wins, found shape {table.shape}")
    if not np.isfinite(table).all() or (table < 0).any() or np.diagonal(table).any():
        raise ValueError("expected finite wins of 0 or more and none of an answer over itself")
    return table
