"""A study of settings and their scores that survives being killed: Optuna over one SQLite file.

Rules that stay true: a score is written before the next settings are asked for; settings that were measured are not
measured again; a trial that was running when the process died is measured again after resuming.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shoal.core.errors import BadConfig, Unsupported
from shoal.plan.space import Knob, Settings, Value, defaults

if TYPE_CHECKING:
    import optuna

SamplerName = Literal["tpe", "random"]
MAX_REPEATS = 3
"""Suggestions already measured, one after another, before something unmeasured is drawn instead."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings and their score. `failure` says in words why the engine could not run with them; else None."""

    settings: dict[str, Value]
    score: float
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class StudyPlace:
    """Where a study is kept, what it is called there, and how its suggestions are drawn."""

    file: Path
    name: str
    sampler: SamplerName = "tpe"
    seed: int = 0


def exists(place: StudyPlace) -> bool:
    """Whether there is such a study to resume."""
    optuna = _import_optuna()
    return place.file.exists() and place.name in optuna.get_all_study_names(f"sqlite:///{place.file}")


class Study:
    """`suggest` and `record` in turns. Opening raises Unsupported without Optuna, BadConfig where nothing resumes."""

    def __init__(self, place: StudyPlace, space: Sequence[Knob], *, is_resumed: bool) -> None:
        self._space = tuple(space)
        self._optuna = _import_optuna()
        place.file.parent.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{place.file}"
        known = self._optuna.get_all_study_names(storage)
        if is_resumed and place.name not in known:
            raise BadConfig("--resume", f"expected a study {place.name!r} in {place.file}, found none; leave it out")
        if place.name in known and not is_resumed:
            self._optuna.delete_study(study_name=place.name, storage=storage)
        self._study = self._optuna.create_study(
            storage=storage, study_name=place.name, direction="maximize", load_if_exists=True
        )
        self._check_space(is_resumed)
        self._study.sampler = self._sampler(place)
        self._revive()
        self._open: optuna.trial.Trial | None = None

    def trials(self) -> list[Trial]:
        """What was measured, in order; repeated suggestions do not count."""
        state = self._optuna.trial.TrialState.COMPLETE
        done = self._study.get_trials(deepcopy=False, states=(state,))
        return [
            Trial(self._settings(trial.params), float(trial.value or 0.0), trial.user_attrs.get("failure"))
            for trial in done
            if not trial.user_attrs.get("is_repeat")
        ]

    def suggest(self) -> dict[str, Value] | None:
        """Settings to measure next, the defaults first; None when nothing new is left."""
        seen = {_key(trial.settings): trial.score for trial in self.trials()}
        for _ in range(MAX_REPEATS):
            if len(seen) == math.prod(len(knob.values) for knob in self._space):
                return None
            if _key(settings := self._ask()) not in seen:
                return settings
            self._close_repeat(seen[_key(settings)])
        self._study.enqueue_trial(self._indices(self._unmeasured(seen)))
        return self._ask()

    def _ask(self) -> dict[str, Value]:
        self._open = self._study.ask(self._distributions())
        return self._settings(self._open.params)

    def _close_repeat(self, score: float) -> None:
        """The sampler learns that it was here before; `trials` does not count it."""
        assert self._open is not None
        self._open.set_user_attr("is_repeat", True)
        self._study.tell(self._open, score)

    def _unmeasured(self, seen: Collection[str]) -> dict[str, Value]:
        names = [knob.name for knob in self._space]
        every = (dict(zip(names, values, strict=True)) for values in product(*(knob.values for knob in self._space)))
        left = [settings for settings in every if _key(settings) not in seen]
        return left[len(seen) * 7919 % len(left)]  # spread over the space, the same each time

    def record(self, score: float, failure: str | None = None) -> None:
        """The score of what was suggested last."""
        assert self._open is not None, "nothing was suggested"
        if failure is not None:
            self._open.set_user_attr("failure", failure)
        self._study.tell(self._open, score)
        self._open = None

    def best(self) -> Trial | None:
        """The best that ran; None when none did."""
        return max((t for t in self.trials() if t.failure is None), key=lambda trial: trial.score, default=None)

    def _revive(self) -> None:
        """The defaults come first in a new study; what was running when the process died comes next in an old one."""
        states = self._optuna.trial.TrialState
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(self._indices(defaults(self._space)))
        for trial in self._study.get_trials(deepcopy=True, states=(states.RUNNING,)):
            self._study.tell(trial.number, state=states.FAIL)
            self._study.enqueue_trial(trial.params)

    def _check_space(self, is_resumed: bool) -> None:
        space = json.dumps([[knob.name, list(knob.values)] for knob in self._space])
        if is_resumed and self._study.user_attrs.get("space", space) != space:
            raise BadConfig("--resume", "this study has other options to choose from; start anew without --resume")
        self._study.set_user_attr("space", space)

    def _sampler(self, place: StudyPlace) -> optuna.samplers.BaseSampler:
        """Seeded by how far the study is, so that a resumed one does not suggest what it began with."""
        seed = place.seed + len(self._study.get_trials(deepcopy=False))
        samplers = self._optuna.samplers
        make = {"random": samplers.RandomSampler, "tpe": partial(samplers.TPESampler, n_startup_trials=8)}
        sampler: optuna.samplers.BaseSampler = make[place.sampler](seed=seed)
        return sampler

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Values are ordered, so the sampler sees their place in the list, not unrelated categories."""
        make = self._optuna.distributions.IntDistribution
        return {knob.name: make(0, len(knob.values) - 1) for knob in self._space}

    def _indices(self, settings: Settings) -> dict[str, int]:
        return {knob.name: knob.values.index(settings[knob.name]) for knob in self._space}

    def _settings(self, params: dict[str, Any]) -> dict[str, Value]:
        return {knob.name: knob.values[params[knob.name]] for knob in self._space}


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise Unsupported("tuning needs Optuna, which is not installed: pip install 'shoal[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
