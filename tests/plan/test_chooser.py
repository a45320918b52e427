"""The chooser that learns while it works: its exploration is bounded, it changes its mind, it repeats itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import BadConfig
from shoal.plan.chooser import Chooser, ChooserOptions
from shoal.plan.selector import SelectorOptions
from shoal.plan.table import Row

CLASSES = (4.0, 6.0, 8.0, 10.0)


def history(speeds: dict[str, float]) -> list[Row]:
    return [Row({"tokens": tokens}, method, speed) for tokens in CLASSES for method, speed in speeds.items()]


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0, 1), max_loss=st.floats(0, 1), seed=st.integers(0, 9),
    asked=st.lists(st.sampled_from([*CLASSES, 40.0]), max_size=150),
)  # fmt: skip
def test_exploration_keeps_to_its_budget_and_to_the_plausible(
    share: float, max_loss: float, seed: int, asked: list[float]
) -> None:
    speeds = {"best": 100.0, "near": 90.0, "slow": 40.0}
    chooser = Chooser(ChooserOptions(tuple(speeds), share=share, max_loss=max_loss, seed=seed), history(speeds))
    for number, tokens in enumerate(asked, 1):
        choice = chooser.choose({"tokens": tokens})
        assert chooser.explorations <= share * number
        if choice.why.startswith("exploring"):
            assert speeds[choice.method] >= (1 - max_loss) * 100 * 0.999
        else:
            assert choice.method == "best"
    assert chooser.choices.total() == len(asked)


def test_no_budget_no_exploration_and_some_budget_some() -> None:
    counts = []
    for share in (0.0, 0.2):
        chooser = Chooser(ChooserOptions(("best", "near"), share=share), history({"best": 100.0, "near": 90.0}))
        for _ in range(200):
            chooser.choose({"tokens": 6.0})
        counts.append(chooser.explorations)
    assert counts[0] == 0
    assert 30 <= counts[1] <= 40


def test_it_notices_through_exploration_that_the_world_has_changed() -> None:
    """`near` was 10 % behind; now it is twice as fast. Only explorations can tell."""
    chooser = Chooser(
        ChooserOptions(("best", "near"), share=0.2, refit=20, max_rows=200), history({"best": 100.0, "near": 90.0})
    )
    now = {"best": 100.0, "near": 200.0}
    last = []
    for number in range(800):
        features = {"tokens": CLASSES[number % 4]}
        method = chooser.choose(features).method
        chooser.observe(features, method, now[method])
        last = [*last, method][-100:]
    assert last.count("near") >= 75


def test_the_same_observations_give_the_same_choices() -> None:
    def play() -> list[str]:
        chooser = Chooser(ChooserOptions(("a", "b"), share=0.3, refit=10, seed=4), history({"a": 100.0, "b": 95.0}))
        chosen = []
        for number in range(60):
            features = {"tokens": CLASSES[number % 4]}
            chosen.append(chooser.choose(features).method)
            chooser.observe(features, chosen[-1], 100.0 + number)
        return chosen

    assert play() == play()


@pytest.mark.parametrize(
    "bad",
    [
        {"methods": ()},
        {"selector": SelectorOptions(default="b"), "methods": ("a",)},
        {"share": 1.5},
        {"share": float("nan")},
        {"max_loss": -1.0},
        {"refit": 0},
    ],
)
def test_bad_options_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(BadConfig, match="methods" if "methods" in bad else next(iter(bad))):
        ChooserOptions(**{"methods": ("a",), **bad})  # type: ignore[arg-type]


def test_from_nothing_it_learns_by_exploring_alone() -> None:
    """No history: the default at first, then what explorations have shown to be three times as fast."""
    chooser = Chooser(ChooserOptions(("off", "lookup", "suffix"), share=0.3, refit=20))
    speeds = {"off": 50.0, "lookup": 30.0, "suffix": 150.0}
    assert chooser.choose({"tokens": 4.0}).why == "nothing is learned yet"
    last = []
    for number in range(600):
        features = {"tokens": CLASSES[number % 4]}
        method = chooser.choose(features).method
        chooser.observe(features, method, speeds[method])
        last = [*last, method][-100:]
    assert last.count("suffix") >= 65


def test_methods_that_are_no_more_are_forgotten() -> None:
    rows = history({"gone": 900.0, "a": 100.0, "b": 50.0})
    chooser = Chooser(ChooserOptions(("a", "b"), share=0.0), rows)
    assert chooser.choose({"tokens": 4.0}).method == "a"
    assert chooser.choices == {"a": 1, "b": 0}
