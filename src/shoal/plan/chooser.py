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
from dataclasses import dataclass, field, replace

from shoal.core.errors import BadConfig
from shoal.plan.selector import Choice, Selector, SelectorOptions
from shoal.plan.table import Features, Row, coarse, tabulate


@dataclass(frozen=True, slots=True)
class ChooserOptions:
    """share: of choices that may explore; max_loss: predicted share of speed one may cost; refit: rows between fits.

    methods  there are, measured or not. The selector's `default` is chosen while nothing is learned.
    """

    methods: tuple[str, ...]
    share: float = 0.05
    max_loss: float = 0.3
    refit: int = 50
    max_rows: int = 2000
    seed: int = 0
    selector: SelectorOptions = field(default_factory=SelectorOptions)

    def __post_init__(self) -> None:
        if not self.methods or self.selector.default not in (None, *self.methods):
            raise BadConfig("methods", f"expected some, {self.selector.default!r} among them, found {self.methods}")
        for key, low, high in (("share", 0.0, 1.0), ("max_loss", 0.0, 1.0)):
            if not low <= getattr(self, key) <= high:
                raise BadConfig(key, f"expected a number from {low} to {high}, found {getattr(self, key)}")
        for key in ("refit", "max_rows"):
            if getattr(self, key) < 1:
                raise BadConfig(key, f"expected at least 1, found {getattr(self, key)}")


class Chooser:
    """Not thread-safe. `rows` is the history to begin with; those of unknown methods are left out."""

    def __init__(self, options: ChooserOptions, rows: Sequence[Row] = ()) -> None:
        self._options = options
        self._default = options.selector.default or options.methods[0]
        rows = [row for row in rows if row.method in options.methods]
        kept = list(rows)[-self._options.max_rows :]
        self._rows = [Row(coarse(row.features), row.method, row.speed) for row in kept]
        self._selector = self._learned()
        self._random = random.Random(options.seed)  # noqa: S311 - exploration, not secrets
        self._new_rows = 0
        self._tried: Counter[tuple[str, str]] = Counter()
        self.choices: Counter[str] = Counter(dict.fromkeys(options.methods, 0))
        self.explorations = 0

    def choose(self, features: Features) -> Choice:
        """What to use for this task; sometimes, within the budget, what its class has tried least of the plausible."""
        features = coarse(features)
        choice = Choice(self._default, "nothing is learned yet")
        if self._selector is not None:
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
            self._selector = self._learned()

    def _may_explore(self) -> bool:
        """Drawn twice as often as the budget allows, so that the budget and not luck is the bound."""
        made = self.choices.total() + 1
        return self.explorations + 1 <= self._options.share * made and self._random.random() < 0.5

    def _plausible(self, features: Features, chosen: str) -> str | None:
        """Of methods that nothing is predicted of, any; of the others, those that would not lose too much."""
        predicted = {} if self._selector is None else self._selector.predictions(features)
        floor = max(predicted.values(), default=0.0) + math.log(max(1.0 - self._options.max_loss, 1e-9))
        near = [name for name in self._options.methods if name != chosen and predicted.get(name, floor) >= floor]
        kind = _class(features)
        return min(near, key=lambda name: (self._tried[kind, name], name), default=None)

    def _learned(self) -> Selector | None:
        """From the classes that know the default's speed, since gains are over it; None while there are none."""
        known = {_class(row.features) for row in self._rows if row.method == self._default}
        rows = [row for row in self._rows if _class(row.features) in known]
        return Selector(tabulate(rows), replace(self._options.selector, default=self._default)) if rows else None


def _class(features: Features) -> str:
    return repr(sorted(features.items()))
