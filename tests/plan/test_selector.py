"""The selector against naive references on synthetic tables: what it must find, and when it must not try."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from shoal.core.errors import LocalError
from shoal.plan.regressors import REGRESSORS, RegressorName, fit_neighbours, fit_ridge, fit_stumps
from shoal.plan.selector import Selector, SelectorOptions, best_single
from shoal.plan.table import Row, Table, coarse, parse_row, tabulate

METHODS = ("always_fine", "for_long", "for_wide")


def world(features: dict[str, float]) -> dict[str, float]:
    """Speeds determined by the features: long prompts want one method, wide batches another."""
    base = 100.0 / (1 + features["length"] / 8)
    long, wide = features["length"] >= 6, features["width"] >= 6
    return {"always_fine": base, "for_long": base * (2.0 if long else 0.6),
            "for_wide": base * (1.7 if wide and not long else 0.5)}  # fmt: skip


def tasks(step: float, start: float = 0.0) -> list[dict[str, float]]:
    grid = np.arange(start, 12, step)
    return [{"length": float(a), "width": float(b)} for a, b in itertools.product(grid, grid)]


def rows_of(where: list[dict[str, float]]) -> list[Row]:
    return [Row(task, method, speed) for task in where for method, speed in world(task).items()]


def regret(selector: Selector, where: list[dict[str, float]]) -> float:
    """Mean share of speed lost against the oracle."""
    lost = []
    for task in where:
        speeds = world(task)
        lost.append(1 - speeds[selector.choose(task).method] / max(speeds.values()))
    return float(np.mean(lost))


@pytest.mark.parametrize("name", list(REGRESSORS))
def test_it_finds_the_best_where_features_determine_it(name: RegressorName) -> None:
    seen, unseen = tasks(1.5), tasks(1.5, start=0.7)
    table = tabulate(rows_of(seen))
    selector = Selector(table, SelectorOptions(name, caution=0.2))
    single = [world(task) for task in unseen]
    of_single = np.mean([1 - speeds[best_single(table)] / max(speeds.values()) for speeds in single])
    limit = 0.25 if name == "ridge" else 0.06  # a line cannot follow a step
    assert of_single > 0.2
    assert regret(selector, unseen) < min(limit, of_single)


def test_it_equals_a_naive_table_lookup_on_tasks_it_has_seen() -> None:
    seen = tasks(2.0)
    selector = Selector(tabulate(rows_of(seen)), SelectorOptions("neighbours", caution=0.0))
    for task in seen:
        speeds = world(task)
        assert speeds[selector.choose(task).method] == max(speeds.values())


def test_out_of_distribution_it_falls_back_and_says_so() -> None:
    selector = Selector(tabulate(rows_of(tasks(1.5))))
    choice = selector.choose({"length": 500.0, "width": 1.0})
    assert choice.method == selector.fallback
    assert "unlike anything measured" in choice.why


def test_a_feature_that_never_varied_makes_a_new_value_of_it_unfamiliar() -> None:
    rows = [Row({**row.features, "cores": 2.0}, row.method, row.speed) for row in rows_of(tasks(1.5))]
    selector = Selector(tabulate(rows))
    known = {"length": 9.0, "width": 0.0}
    assert selector.choose({**known, "cores": 2.0}).method == "for_long"
    assert "unlike" in selector.choose({**known, "cores": 64.0}).why


def test_noise_alone_never_moves_a_cautious_selector_from_the_best_single() -> None:
    rng = np.random.default_rng(5)
    rows = [
        Row(task, method, float(100 * np.exp(rng.normal(0, 0.1)) * (1.05 if method == "a" else 1)))
        for task in tasks(2.0) for method in "abc"
    ]  # fmt: skip
    selector = Selector(tabulate(rows), SelectorOptions(caution=2.0))
    assert {selector.choose(task).method for task in tasks(2.0)} == {"a"}


def test_best_single_is_the_naive_one_among_methods_measured_everywhere() -> None:
    table = tabulate([*rows_of(tasks(3.0)), Row({"length": 0.0, "width": 0.0}, "rare", 1e9)])
    naive = {name: np.mean([np.log(world(task)[name]) for task in tasks(3.0)]) for name in METHODS}
    assert best_single(table) == max(naive, key=lambda name: naive[name])


def equals(seed: int) -> list[Row]:
    """Three methods that differ by noise alone."""
    rng = np.random.default_rng(seed)
    return [Row(task, method, float(100 * np.exp(rng.normal(0, 0.1)))) for task in tasks(2.0) for method in "abc"]


def test_the_default_stays_the_fallback_until_another_is_clearly_better() -> None:
    moved = 0
    for seed in range(60):
        rows = equals(seed)
        single = best_single(tabulate(rows))
        default = next(name for name in "abc" if name != single)
        moved += Selector(tabulate(rows), SelectorOptions(default=default)).fallback != default
        clear = [Row(row.features, row.method, row.speed * (1.3 if row.method == single else 1)) for row in rows]
        assert Selector(tabulate(clear), SelectorOptions(default=default)).fallback == single
        assert Selector(tabulate(clear), SelectorOptions(default="never measured")).fallback == single
    assert moved <= 2


def test_nothing_measured_everywhere_is_an_error() -> None:
    rows = [Row({"x": 0.0}, "a", 1.0), Row({"x": 1.0}, "b", 1.0)]
    with pytest.raises(LocalError, match="measured on every task"):
        Selector(tabulate(rows))
    with pytest.raises(LocalError, match="at least one measured row"):
        tabulate([])


def test_a_table_takes_the_median_of_runs_and_has_holes() -> None:
    rows = [Row({"x": 1.0}, "a", speed) for speed in (1.0, 50.0, 3.0)] + [Row({"y": 2.0}, "b", 5.0)]
    table = tabulate(rows)
    assert (table.names, table.methods) == (("x", "y"), ("a", "b"))
    np.testing.assert_array_equal(table.features, [[1, 0], [0, 2]])
    np.testing.assert_array_equal(table.speeds, [[3, np.nan], [np.nan, 5]])
    assert isinstance(table.without(np.array([True, False])), Table)
    assert table.without(np.array([True, False])).speeds.shape == (1, 2)


def test_ridge_is_the_closed_form_of_its_objective() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    x -= x.mean(axis=0)
    augmented = np.vstack([x, np.eye(3)])  # a unit penalty is three more observations of zero
    naive = np.linalg.lstsq(augmented, np.concatenate([y - y.mean(), np.zeros(3)]), rcond=None)[0]
    np.testing.assert_allclose(fit_ridge(x, y)(x), x @ naive + y.mean(), atol=1e-10)


def test_neighbours_are_the_nearest_by_brute_force() -> None:
    rng = np.random.default_rng(2)
    x, y, asked = rng.normal(size=(30, 2)), rng.normal(size=30), rng.normal(size=(5, 2))
    for row, got in zip(asked, fit_neighbours(x, y)(asked), strict=True):
        near = sorted((float(np.linalg.norm(row - point)), value) for point, value in zip(x, y, strict=True))[:3]
        weights = [1 / (distance + 1e-6) for distance, _ in near]
        naive = sum(w * value for w, (_, value) in zip(weights, near, strict=True)) / sum(weights)
        assert got == pytest.approx(naive)


def test_the_first_stump_is_the_best_of_all_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    best = min(
        sum(((y[side] - y[side].mean()) ** 2).sum() for side in (x[:, c] <= t, x[:, c] > t))
        for c in range(2) for t in np.sort(x[:, c])[1:-2]
    )  # fmt: skip
    from shoal.plan import regressors

    column, threshold, *_ = regressors._best_stump(x, y - y.mean()) or pytest.fail("no split")
    left = x[:, column] <= threshold
    assert sum(((y[side] - y[side].mean()) ** 2).sum() for side in (left, ~left)) == pytest.approx(best)
    fitted = fit_stumps(x, y)(x)
    assert ((fitted - y) ** 2).sum() < 0.5 * ((y - y.mean()) ** 2).sum()


def test_constant_features_leave_boosting_at_the_mean() -> None:
    assert fit_stumps(np.zeros((5, 2)), np.arange(5.0))(np.zeros((1, 2)))[0] == 2.0


@pytest.mark.parametrize(
    "found",
    [
        None, [], {"features": {}, "method": "a"}, {"features": {}, "method": "a", "speed": 0},
        {"features": {}, "method": "a", "speed": float("nan")}, {"features": {"x": "1"}, "method": "a", "speed": 1},
        {"features": {"x": float("inf")}, "method": "a", "speed": 1}, {"features": [], "method": "a", "speed": 1},
    ],
)  # fmt: skip
def test_what_is_no_row(found: object) -> None:
    with pytest.raises(LocalError, match="expected features, a method and a positive speed"):
        parse_row(found)


def test_coarse_features_are_classes() -> None:
    assert coarse({"tokens": 6.6, "share": 0.9, "zero": 0.2}) == {"tokens": 6.5, "share": 1.0, "zero": 0.0}
    assert coarse({"tokens": 6.4, "share": 0.8, "zero": 0.0}) == {"tokens": 6.5, "share": 1.0, "zero": 0.0}
    assert coarse(coarse({"x": 7.3})) == coarse({"x": 7.3})
