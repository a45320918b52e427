"""What `shoal tune` does: a study of trials in fresh processes, a contest with the defaults, and what re-tuning gains.

A study's best is the luckiest of many noisy scores, so what is reported comes from contests: both settings measured
again, in turns. A profile says only what a clear winner changes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from shoal.core.errors import BadConfig, LocalError
from shoal.node.config import NodeConfig
from shoal.node.config_sources import Loaded
from shoal.node.profiles import fingerprint, kernels
from shoal.node.trial import TrialFailed, TrialOptions, run_trial
from shoal.plan.objective import FAILED, Objective, name_of, score, unit
from shoal.plan.space import Knob, Settings, Value, defaults, describe, knobs
from shoal.plan.study import Study, StudyPlace, Trial, exists
from shoal.plan.transfer import Contest, contest

STUDIES = Path("tune") / "studies.db"

Say = Callable[[str], None]
Attempt = Callable[[Settings], float]


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """Ends after `trials` measured settings or `minutes`, whichever comes first.

    models    other files of the same network, in other quantisations, to choose from.
    rounds    of the contest with the defaults.
    kv_types  of the cache, less precise than the default, to choose from.
    """

    objective: Objective
    trials: int = 40
    minutes: float | None = None
    is_resumed: bool = False
    models: tuple[str, ...] = ()
    sampler: Any = "tpe"
    seed: int = 0
    repeats: int = 3
    rounds: int = 5
    kv_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best settings of a study for a number of cores, complete, and the trials behind them."""

    cores: int
    space: tuple[Knob, ...]
    settings: dict[str, Value]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Tuner:
    """`base` is the configuration without any profile; `fixed` are the options a person chose."""

    base: NodeConfig
    fixed: frozenset[str]
    options: TuneOptions
    say: Say

    def tune(self, cores: int, *, may_be_new: bool = False) -> Tuned:
        """A study on that many cores. LocalError when not a single setting ran.

        may_be_new  it is no mistake to resume before it was ever begun.
        """
        models, place = (self.base.model, *self.options.models), self._place(cores)
        space = knobs(cores, models, self.fixed, self.options.kv_types)
        is_resumed = self.options.is_resumed and not (may_be_new and not exists(place))
        study = Study(place, space, is_resumed=is_resumed)
        self._run(study, cores)
        best = study.best()
        if best is None:
            raise LocalError(f"no settings ran: {next((t.failure for t in study.trials()), 'no trial was made')}")
        return Tuned(cores, space, {**self._explicit(cores, space), **best.settings}, tuple(study.trials()))

    def against_defaults(self, tuned: Tuned) -> Contest:
        plain = {**self._explicit(tuned.cores, tuned.space), **defaults(tuned.space)}
        return self.contest(plain, tuned.settings, tuned.cores)

    def contest(self, first: Settings, second: Settings, cores: int) -> Contest:
        """Both measured in turns on that many cores; equal settings are measured all the same: their gain is noise."""
        return contest(first, second, lambda settings: self._score(settings, cores)[0], self.options.rounds)

    def _run(self, study: Study, cores: int) -> None:
        began, limit = time.monotonic(), self.options.minutes
        while (done := len(study.trials())) < self.options.trials:
            if limit is not None and time.monotonic() - began > limit * 60:
                break
            settings = study.suggest()
            if settings is None:
                self.say("every setting has been measured")
                break
            value, failure = self._score(settings, cores)
            study.record(value, failure)
            self._tell(done + 1, value, failure, settings, study)

    def _tell(self, number: int, value: float, failure: str | None, settings: Settings, study: Study) -> None:
        best = study.best()
        found = f"{value:9.2f} {unit(self.options.objective)}" if failure is None else f"failed: {failure}"
        top = f"best {best.score:.2f}" if best is not None else "none yet"
        self.say(f"trial {number:3d}/{self.options.trials}  {found}  ({top})  {describe(settings)}")

    def _score(self, settings: Settings, cores: int) -> tuple[float, str | None]:
        trial = TrialOptions(cores, self.options.repeats, self.options.seed)
        try:
            return score(self.options.objective, run_trial(configured_as(self.base, settings), trial)), None
        except TrialFailed as error:
            return FAILED[name_of(self.options.objective)], str(error)

    def _explicit(self, cores: int, space: tuple[Knob, ...]) -> dict[str, Value]:
        """Threads are said even where one core leaves no choice: elsewhere it is what makes the settings stale."""
        is_said = "threads" in self.fixed or any(knob.name == "threads" for knob in space)
        return {} if is_said else {"threads": cores}

    def _place(self, cores: int) -> StudyPlace:
        """A study belongs to a machine, a model, what is fixed, and an objective."""
        fixed = sorted((name, str(getattr(self.base, name))) for name in self.fixed)
        parts = (*astuple(fingerprint(self.base)), cores, fixed, self.options.objective, *self.options.kv_types)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        name = f"{name_of(self.options.objective)}-{cores}-cores-{digest}"
        return StudyPlace(self.base.home / STUDIES, name, self.options.sampler, self.options.seed)


def unprofiled(loaded: Loaded, profile: Path) -> tuple[NodeConfig, frozenset[str]]:
    """The configuration as if there were no profile, and the names of the options that a person set.

    Options the chosen kernels do not have count as set, since nothing else would run.
    """
    plain = NodeConfig(home=loaded.config.home)
    profiled = {name: getattr(plain, name) for name, origin in loaded.origins.items() if origin == str(profile)}
    config = replace(loaded.config, **profiled)
    fixed = {name for name, origin in loaded.origins.items() if origin not in ("default", str(profile))} - {"model"}
    if kernels(config) in ("cuda", "torch"):
        fixed |= {"kv_type", "activation_bits"}
    return config, frozenset(fixed)


def configured_as(base: NodeConfig, settings: Settings) -> NodeConfig:
    """BadConfig names an option that does not exist: a knob without its option is our mistake."""
    try:
        return replace(base, **dict(settings))  # type: ignore[arg-type]
    except TypeError as error:
        raise BadConfig("tune", str(error)) from error
