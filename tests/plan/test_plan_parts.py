"""Space, objectives, joules, landscape, workloads and contests."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import BadConfig, Unsupported
from shoal.meter.rapl import joules_between, read
from shoal.plan.landscape import landscape
from shoal.plan.objective import Joules, Latency, Measurement, Throughput, parse_objective, score, unit
from shoal.plan.space import TUNABLE, Knob, changed, defaults, describe, knobs, thread_counts
from shoal.plan.study import Trial
from shoal.plan.transfer import contest
from shoal.plan.workload import KINDS, mixed, workload


@given(st.integers(1, 300))
def test_thread_counts_double_and_end_at_the_number_of_cores(cores: int) -> None:
    counts = thread_counts(cores)
    assert counts[-1] == cores
    assert all(math.log2(count).is_integer() for count in counts[:-1])
    assert list(counts) == sorted(set(counts))


def test_knobs_are_the_tunable_ones_their_default_among_their_values() -> None:
    space = knobs(4, ("a.gguf", "b.gguf"))
    assert tuple(knob.name for knob in space) == TUNABLE
    assert all(knob.default in knob.values for knob in space)
    assert [knob.name for knob in knobs(1, ("a.gguf",), fixed={"kv_type"})] == [
        "block_size", "max_batch_tokens", "max_running", "activation_bits", "prefix_cache", "draft"
    ]  # fmt: skip
    widened = {knob.name: knob.values for knob in knobs(4, ("a.gguf",), kv_types=("int8",))}
    assert widened["kv_type"] == ("f16", "f32", "int8")
    with pytest.raises(BadConfig, match="at least one option left"):
        knobs(1, ("a.gguf",), TUNABLE)


def test_every_pair_of_batch_limits_is_one_the_scheduler_takes() -> None:
    space = {knob.name: knob.values for knob in knobs(2, ("a",))}
    assert max(int(value) for value in space["max_running"]) <= min(int(value) for value in space["max_batch_tokens"])


def test_a_profile_says_only_what_differs() -> None:
    space = knobs(2, ("a.gguf",))
    assert changed(space, defaults(space)) == {}
    assert changed(space, {**defaults(space), "threads": 1, "kv_type": "f32"}) == {"threads": 1, "kv_type": "f32"}
    assert describe({}) == "the defaults"


FOUND = Measurement(tokens=100, wall_s=2.0, ttft_p95_s=0.5, tpot_p95_s=0.02, energy_j=20.0)


def test_scores() -> None:
    assert score(Throughput(), FOUND) == 50.0
    assert score(Joules(), FOUND) == 5.0
    assert score(Latency(0.5, 0.02), FOUND) == 50.0
    assert score(Latency(0.25, 0.02), FOUND) == -2.0
    assert score(Latency(0.25, 0.005), FOUND) == -4.0
    for objective in (Throughput(), Joules(), Latency(0.0001, 1)):
        assert score(objective, None) < score(objective, FOUND)
    assert (unit(Joules()), unit(Latency(1, 1))) == ("tokens/J", "tokens/s")


def test_objectives_by_name() -> None:
    assert parse_objective("throughput", 1, 1, False) == Throughput()
    assert parse_objective("latency", 1, 2, False) == Latency(1, 2)
    assert parse_objective("joules", 1, 1, True) == Joules()
    with pytest.raises(Unsupported, match="objective joules: expected energy counters"):
        parse_objective("joules", 1, 1, False)
    with pytest.raises(BadConfig, match="found 'speed'"):
        parse_objective("speed", 1, 1, True)
    with pytest.raises(Unsupported, match="no energy reading"):
        score(Joules(), Measurement(1, 1.0, 1.0, 1.0))


def counter(root: Path, name: str, value: int) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "energy_uj").write_text(f"{value}\n")
    (root / name / "max_energy_range_uj").write_text("1000000\n")


def test_joules_are_summed_over_packages_only_and_survive_a_counter_that_starts_again(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 900_000)
    counter(tmp_path, "intel-rapl:1", 100)
    counter(tmp_path, "intel-rapl:0:0", 5)
    before = read(tmp_path)
    counter(tmp_path, "intel-rapl:0", 100_000)
    counter(tmp_path, "intel-rapl:1", 300_100)
    counter(tmp_path, "intel-rapl:0:0", 999)
    after = read(tmp_path)
    assert before is not None
    assert after is not None
    assert joules_between(before, after) == pytest.approx(0.2 + 0.3)


def test_counters_that_cannot_be_read_are_none_not_zero(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing") is None
    counter(tmp_path, "intel-rapl:0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("secret")
    assert read(tmp_path) is None


def test_the_landscape_is_svg_with_a_dot_per_trial_and_knob() -> None:
    space = (Knob("threads", (1, 2), 1), Knob("model", ("a<b>.gguf", "/x/y/a-very-long-name.gguf"), "a<b>.gguf"))
    trials = [
        Trial({"threads": 1, "model": "a<b>.gguf"}, 5.0),
        Trial({"threads": 2, "model": "a<b>.gguf"}, 9.0),
        Trial({"threads": 2, "model": "/x/y/a-very-long-name.gguf"}, 0.0, "no room"),
    ]
    root = ElementTree.fromstring(landscape(space, trials, "5 < 6 & more", "tokens/s"))
    svg = "{http://www.w3.org/2000/svg}"
    dots = [item for item in root.iter(f"{svg}circle") if item.get("fill") != "none"]
    assert len(dots) == 4
    assert len([item for item in root.iter(f"{svg}circle") if item.get("fill") == "none"]) == 2
    texts = [item.text for item in root.iter(f"{svg}text")]
    assert {"threads", "a<b>.gguf", "5 < 6 & more (3 trials, tokens/s)", "9", "5"} <= set(texts)
    empty = ElementTree.fromstring(landscape(space, [], "none", "tokens/s"))
    assert not list(empty.iter(f"{svg}circle"))


@pytest.mark.parametrize("kind", list(KINDS))
def test_workloads_repeat_for_a_seed_and_differ_between_seeds_with_the_same_shape(kind: str) -> None:
    for size in (1, 2):
        first, again, other = workload(kind, size, 1), workload(kind, size, 1), workload(kind, size, 2)
        assert first == again
        assert not {ask.prompt for ask in first.asks} & {ask.prompt for ask in other.asks}
        shape = [[(len(ask.prompt.split()), ask.max_tokens) for ask in turn] for turn in first.turns]
        assert [len(turn) for turn in other.turns] == [len(turn) for turn in shape]
    assert sum(len(ask.prompt) for ask in workload(kind, 2, 1).asks) > sum(
        len(ask.prompt) for ask in workload(kind, 1, 1).asks
    )


def test_the_mixed_workload_holds_every_kind() -> None:
    assert len(mixed(0).asks) == sum(len(workload(kind, 1, 0).asks) for kind in KINDS)


def test_a_contest_takes_turns_and_knows_noise_from_gain() -> None:
    order: list[int] = []

    def attempt(settings: dict[str, int]) -> float:
        order.append(settings["x"])
        return {0: 100.0, 1: 120.0}[settings["x"]] + len(order) % 3

    found = contest({"x": 0}, {"x": 1}, attempt, 4)  # type: ignore[arg-type]
    assert order == [0, 1, 1, 0, 0, 1, 1, 0]
    assert found.gain == pytest.approx(0.2, abs=0.02)
    assert found.is_clear
    noisy = contest({"x": 0}, {"x": 0}, lambda _: 100.0 + 10 * (-1) ** len(order.append(0) or order), 3)
    assert not noisy.is_clear
    assert contest({}, {}, lambda _: -1.0, 2).gain == 0.0
