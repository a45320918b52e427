"""A study survives its process, repeats nothing, and finds what is there to find."""

from __future__ import annotations

import builtins
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal.core.errors import BadConfig, Unsupported
from shoal.plan.space import Knob, defaults
from shoal.plan.study import Study, StudyPlace, Trial, exists

SPACE = (Knob("threads", (1, 2, 4, 8), 4), Knob("kv_type", ("f16", "f32"), "f16"), Knob("flag", (True, False), True))


def speed(settings: dict[str, Any]) -> float:
    return settings["threads"] * (2.0 if settings["kv_type"] == "f32" else 1.0) + (0.5 if settings["flag"] else 0.0)


def run(study: Study, count: int) -> list[dict[str, Any]]:
    asked = []
    for _ in range(count):
        settings = study.suggest()
        if settings is None:
            break
        asked.append(settings)
        study.record(speed(settings))
    return asked


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_defaults_come_first_nothing_repeats_and_the_whole_space_ends(tmp_path: Path, sampler: Any) -> None:
    study = Study(StudyPlace(tmp_path / "s.db", "a", sampler), SPACE, is_resumed=False)
    asked = run(study, 99)
    assert asked[0] == defaults(SPACE)
    assert len(asked) == len({tuple(settings.values()) for settings in asked}) == 16
    best = study.best()
    assert best == Trial({"threads": 8, "kv_type": "f32", "flag": True}, 16.5)
    assert [trial.settings for trial in study.trials()] == asked


def test_the_same_seed_asks_the_same_and_another_does_not(tmp_path: Path) -> None:
    asked = [
        run(Study(StudyPlace(tmp_path / f"{number}.db", "a", seed=seed), SPACE, is_resumed=False), 6)
        for number, seed in enumerate((1, 1, 2))
    ]
    assert asked[0] == asked[1] != asked[2]


KILLED = """
import sys, pathlib
sys.path[:0] = {path!r}
from test_study import SPACE, Study, StudyPlace, speed
study = Study(StudyPlace(pathlib.Path({file!r}), "a"), SPACE, is_resumed=False)
for _ in range(4):
    settings = study.suggest()
    study.record(speed(settings))
study.suggest()
print("suggested", flush=True)
sys.stdin.read()
"""


def test_killed_in_the_middle_of_a_trial_it_resumes_with_that_trial(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    code = KILLED.format(path=[str(Path(__file__).parent), *sys.path], file=str(file))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"suggested\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reference = run(Study(StudyPlace(tmp_path / "whole.db", "a"), SPACE, is_resumed=False), 5)
    study = Study(StudyPlace(file, "a"), SPACE, is_resumed=True)
    assert [trial.settings for trial in study.trials()] == reference[:4]
    asked = run(study, 99)
    assert asked[0] == reference[4]
    assert len(study.trials()) == 16


def test_a_new_study_replaces_an_old_one_of_its_name_only(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    for name in ("a", "b"):
        run(Study(StudyPlace(file, name), SPACE, is_resumed=False), 3)
    assert Study(StudyPlace(file, "a"), SPACE, is_resumed=False).trials() == []
    assert len(Study(StudyPlace(file, "b"), SPACE, is_resumed=True).trials()) == 3


def test_resuming_nothing_or_another_space_is_refused(tmp_path: Path) -> None:
    place = StudyPlace(tmp_path / "s.db", "a")
    assert not exists(place)
    with pytest.raises(BadConfig, match="--resume: expected a study 'a'"):
        Study(place, SPACE, is_resumed=True)
    run(Study(place, SPACE, is_resumed=False), 1)
    assert exists(place)
    with pytest.raises(BadConfig, match="--resume: this study has other options"):
        Study(place, SPACE[:2], is_resumed=True)


def test_failures_are_kept_with_their_reason_and_never_best(tmp_path: Path) -> None:
    study = Study(StudyPlace(tmp_path / "s.db", "a"), SPACE, is_resumed=False)
    study.suggest()
    study.record(1e9, "out of memory")
    assert study.best() is None
    assert study.trials()[0].failure == "out of memory"
    run(study, 2)
    best = study.best()
    assert best is not None
    assert best.failure is None


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(Unsupported, match=r"pip install 'shoal\[tune\]'"):
        Study(StudyPlace(tmp_path / "s.db", "a"), SPACE, is_resumed=False)
