"""A selector that goes on learning: it watches what its choices gave, and tries others within a budget.

Requests of about the same features are one class (`table.coarse`): speeds of two methods are compared within a class.

Rules that stay true: at most `share` of all choices are explorations; an exploration never takes a method
predicted to be slower than the best one by more than `max_loss`; the same observations and seed give the same choices.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from shoal.core.errors import BadConfig
from shoal.plan.selector import Choice, Selector, SelectorOptions
from shoal.plan.table import Features, Row, coarse, tabulate


@dataclass(frozen=True, slots=True)
class ChooserOptions:
    """share: of choices that may explore; max_loss: predicted share of speed one may cost; refit: rows between fits."""

    share: float = 0.05
    max_loss: float = 0.3
    refit: int = 50
    max_rows: int = 2000
    seed: int = 0
    selector: SelectorOptions = field(default_factory=SelectorOptions)

    def __post_init__(self) -> None:
        for key, low, high in (("share", 0.0, 1.0), ("max_loss", 0.0, 1.0)):
            if not low <= getattr(self, key) <= high:
                raise BadConfig(key, f"expected a number from {low} to {high}, found {getattr(self, key)}")
        for key in ("refit", "max_rows"):
            if getattr(self, key) < 1:
                raise BadConfig(key, f"expected at least 1, found {getattr(self, key)}")


class Chooser:
    """Not thread-safe. `rows` is the history to begin with; LocalError as `Selector` where nothing can be learned."""

    def __init__(self, rows: Sequence[Row], options: ChooserOptions | None = None) -> None:
        self._options = options or ChooserOptions()
        kept = list(rows)[-self._options.max_rows :]
        self._rows = [Row(coarse(row.features), row.method, row.speed) for row in kept]
        self._selector = Selector(tabulate(self._rows), self._options.selector)
        self._random = random.Random(self._options.seed)  # noqa: S311 - exploration, not secrets
        self._new_rows = 0
        self._tried: Counter[tuple[str, str]] = Counter()
        self.choices: Counter[str] = Counter()
        self.explorations = 0

    def choose(self, features: Features) -> Choice:
        """What to use for this task; sometimes, within the budget, what its class has tried least of the plausible."""
        features = coarse(features)
        choice = self._selector.choose(features)
        if self._may_explore() and (other := self._plausible(features, choice.method)) is not None:
            self.explorations += 1
            choice = Choice(other, f"exploring, as {self._options.share:.0%} of choices may")
        self.choices[choice.method] += 1
        self._tried[_class(features), choice.method] += 1
        return choice

    def observe(self, features: Features, method: str, speed: float) -> None:
        """What a choice gave. Learned from after every `refit` observations."""
        self._rows = [*self._rows, Row(coarse(features), method, speed)][-self._options.max_rows :]
        self._new_rows += 1
        if self._new_rows >= self._options.refit:
            self._new_rows = 0
            self._selector = Selector(tabulate(self._comparable()), self._options.selector)

    def _may_explore(self) -> bool:
        """Drawn twice as often as the budget allows, so that the budget and not luck is the bound."""
        made = self.choices.total() + 1
        return self.explorations + 1 <= self._options.share * made and self._random.random() < 0.5

    def _plausible(self, features: Features, chosen: str) -> str | None:
        predicted = self._selector.predictions(features)
        floor = max(predicted.values()) + math.log(max(1.0 - self._options.max_loss, 1e-9))
        near = [name for name, gain in predicted.items() if name != chosen and gain >= floor]
        kind = _class(features)
        return min(near, key=lambda name: (self._tried[kind, name], name), default=None)

    def _comparable(self) -> list[Row]:
        """Rows of the classes that know the fallback's speed: gains are over it."""
        base = self._selector.fallback
        known = {_class(row.features) for row in self._rows if row.method == base}
        return [row for row in self._rows if _class(row.features) in known]


def _class(features: Features) -> str:
    return repr(sorted(features.items()))
