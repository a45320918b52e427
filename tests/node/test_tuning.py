"""`shoal tune`: what is searched and what is not, what it writes, and a few real trials."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from shoal.core.errors import BadConfig, LocalError
from shoal.node import tuning
from shoal.node.cli import main
from shoal.node.config import OPTIONS, NodeConfig
from shoal.node.config_sources import load
from shoal.node.home import home
from shoal.node.trial import TrialFailed, TrialOptions, _spoken, heard, run_trial
from shoal.node.tuning import TuneOptions, Tuner, configured_as, unprofiled
from shoal.plan.objective import Measurement, Throughput
from shoal.plan.profile import read_profile
from shoal.plan.space import TUNABLE, knobs
from shoal.plan.workload import mixed


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[tuple[NodeConfig, int]]:
    """Trials without an engine: f32 caches are quick, blocks of 128 crash, two threads want two cores."""
    seen: list[tuple[NodeConfig, int]] = []

    def attempt(config: NodeConfig, options: TrialOptions) -> Measurement:
        assert options.cores is not None
        seen.append((config, options.cores))
        if config.block_size == 128:
            raise TrialFailed("no room")
        speed = 100.0 + 50.0 * (config.kv_type == "f32") + 40.0 * (config.threads == options.cores)
        return Measurement(1000, 1000 / speed, 0.1, 0.01)

    monkeypatch.setattr(tuning, "run_trial", attempt)
    return seen


def tuner(home: Path, options: TuneOptions, *fixed: str, **config: Any) -> Tuner:
    return Tuner(NodeConfig(home=home, **config), frozenset(fixed), options, lambda text: None)


def test_every_knob_is_an_option_whose_parser_takes_its_values() -> None:
    parse = {option.name: option.parse for option in OPTIONS}
    space = knobs(4, ("a.gguf", "b.gguf"))
    assert {knob.name for knob in space} == set(TUNABLE)
    for knob in space:
        for value in knob.values:
            assert parse[knob.name](value) == value or (value, parse[knob.name](value)) == ("auto", None)
    with pytest.raises(BadConfig, match="tune"):
        configured_as(NodeConfig(home=Path("/h")), {"no_such_option": 1})


def test_it_finds_what_is_quick_survives_what_crashes_and_beats_the_defaults(
    tmp_path: Path, trials: list[tuple[NodeConfig, int]]
) -> None:
    found = tuner(tmp_path, TuneOptions(Throughput(), trials=60)).tune(2)
    assert (found.settings["kv_type"], found.settings["threads"]) == ("f32", 2)
    failed = [trial for trial in found.trials if trial.failure]
    assert {trial.settings["block_size"] for trial in failed} == {128}
    assert failed[0].failure == "no room"
    match = tuner(tmp_path, TuneOptions(Throughput())).against_defaults(found)
    assert match.is_clear
    assert match.gain == pytest.approx(190 / 140 - 1)


def test_what_a_person_set_is_never_searched(tmp_path: Path, trials: list[tuple[NodeConfig, int]]) -> None:
    fixed = tuner(tmp_path, TuneOptions(Throughput(), trials=12), "threads", "kv_type", threads=1, kv_type="f16")
    found = fixed.tune(2)
    assert not {"threads", "kv_type"} & set(found.settings)
    assert {(config.threads, config.kv_type) for config, _ in trials} == {(1, "f16")}


def test_a_smaller_machine_says_its_threads_so_that_they_can_be_stale(
    tmp_path: Path, trials: list[tuple[NodeConfig, int]]
) -> None:
    both = tuner(tmp_path, TuneOptions(Throughput(), trials=40))
    small, large = both.tune(1), both.tune(2)
    assert (small.settings["threads"], large.settings["threads"]) == (1, 2)
    assert both.contest(small.settings, large.settings, 2).gain == pytest.approx(190 / 150 - 1)


def test_nothing_that_runs_is_an_error_with_the_reason(tmp_path: Path, trials: list[tuple[NodeConfig, int]]) -> None:
    with pytest.raises(LocalError, match="no settings ran: no room"):
        tuner(tmp_path, TuneOptions(Throughput(), trials=3), "block_size", block_size=128).tune(2)


def test_options_of_the_profile_are_searched_and_those_of_a_person_are_not(tmp_path: Path) -> None:
    loaded = load({"threads": "2"}, {"SHOAL_HOME": str(tmp_path), "XDG_CONFIG_HOME": "/nowhere"})
    profile = tmp_path / "profile.toml"
    tuned = replace(
        loaded, config=replace(loaded.config, block_size=64), origins={**loaded.origins, "block_size": str(profile)}
    )
    config, fixed = unprofiled(tuned, profile)
    assert (config.block_size, config.threads) == (16, 2)
    assert "threads" in fixed
    assert "block_size" not in fixed


def test_a_configuration_survives_the_way_to_its_trial() -> None:
    config = NodeConfig(
        home=Path("/a home"), adapters=(("x", "/y=z"),), threads=2, kv_type="f32", prefix_cache=False, kv_memory=2**30
    )
    assert heard(json.loads(json.dumps(_spoken(config)))) == config


def test_it_refuses_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from shoal.meter import rapl as energy

    monkeypatch.setattr(energy, "read", lambda: None)
    for arguments, words in (
        (["--objective", "joules"], "objective joules: expected energy counters"),
        (["--objective", "speed"], "--objective: expected throughput, latency or joules"),
        (["--max-ttft", "soon"], "--max-ttft: expected a duration"),
        (["--sampler", "grid"], "--sampler: expected one of tpe, random"),
    ):
        assert main(["tune", *arguments]) in (1, 2)
        assert words in capsys.readouterr().err


def test_the_command_writes_profile_and_landscape_and_resumes(
    tmp_path: Path, trials: list[tuple[NodeConfig, int]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = tmp_path / "m.gguf"
    model.write_bytes(b"x")
    for name, value in {"SHOAL_HOME": str(tmp_path / "h"), "XDG_CONFIG_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SHOAL_CONFIG", raising=False)
    monkeypatch.setattr("shoal.node.machine.num_cores", lambda: 2)
    arguments = ["tune", "--model", str(model), "--json", "--transfer"]
    assert main([*arguments, "--resume"]) == 2
    assert "--resume: expected a study" in capsys.readouterr().err
    assert main([*arguments, "--trials", "10"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 10
    assert main([*arguments, "--trials", "40", "--resume"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "trial  11/40" in captured.err
    assert "trial  10/40" not in captured.err
    assert found["trials"] == 40
    assert found["kept"]["kv_type"] == "f32"
    assert "threads" not in found["kept"]
    assert [(row["from_cores"], row["to_cores"]) for row in found["transfer"]] == [(1, 2), (2, 1)]
    assert all(row["gain"] > 0.2 for row in found["transfer"])
    profile = read_profile(Path(found["profile"]))
    assert profile is not None
    assert profile.options == found["kept"]
    assert load({"model": str(model)}, os.environ).config.kv_type == "f32"
    ElementTree.parse(found["landscape"])


@pytest.mark.real
def test_a_trial_measures_the_real_engine_and_says_why_another_cannot_run(tmp_path: Path, default_gguf: Path) -> None:
    (tmp_path / "kernels").symlink_to(home(os.environ) / "kernels")
    config = NodeConfig(home=tmp_path, model=str(default_gguf))
    found = run_trial(config, TrialOptions(cores=1, repeats=1))
    assert found.tokens == sum(ask.max_tokens for ask in mixed(0).asks)
    assert 0 < found.tpot_p95_s < found.wall_s
    assert 0 < found.ttft_p95_s < found.wall_s
    with pytest.raises(TrialFailed, match="block_size: expected a multiple of 16, found 17"):
        run_trial(replace(config, block_size=17), TrialOptions(repeats=1))
