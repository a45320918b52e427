"""The judge of `draft = learned`: the chooser of `plan`, its history on disk, and the engine's cases as features."""

from __future__ import annotations

import logging
from pathlib import Path

from shoal.engine.drafts.chosen import Case
from shoal.plan.chooser import Chooser, ChooserOptions
from shoal.plan.features import of_request
from shoal.plan.history import History
from shoal.plan.selector import SelectorOptions
from shoal.plan.table import Row

_log = logging.getLogger(__name__)

REFIT, MAX_ROWS = 100, 1000
"""Learning from a thousand rows takes about 40 ms between two steps; every hundred requests that is nothing."""


class LearnedJudge:
    """Of `methods`, `default` is used until something is learned. Only numbers are kept: lengths, shares, speeds."""

    def __init__(self, methods: tuple[str, ...], default: str, file: Path) -> None:
        self._history: History | None = History(file)
        options = ChooserOptions(methods, refit=REFIT, max_rows=MAX_ROWS, selector=SelectorOptions(default=default))
        self._chooser = Chooser(options, self._history.rows())
        self._why = ""

    def choose(self, case: Case) -> str:
        choice = self._chooser.choose(_features(case))
        self._why = f"{choice.method}: {choice.why}"
        return choice.method

    def observe(self, case: Case, method: str, tokens_per_s: float) -> None:
        features = _features(case)
        self._chooser.observe(features, method, tokens_per_s)
        try:
            if self._history is not None:
                self._history.append(Row(features, method, tokens_per_s))
        except OSError as error:
            self._history = None
            _log.warning("what drafts gave is no longer written down: %s", error)

    def choices(self) -> tuple[tuple[str, int], ...]:
        return tuple(self._chooser.choices.items())

    def why(self) -> str:
        return self._why


def _features(case: Case) -> dict[str, float]:
    return of_request(case.tokens, case.most, case.running, case.num_cached)
