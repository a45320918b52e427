"""Accuracy per watt and joule, and routing that pays for its mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.meter.ipw import Tried, routed, score


def test_the_definitions() -> None:
    found = score([Tried(True, 10.0, 2.0), Tried(False, 30.0, 2.0)])
    assert found.accuracy.value == 0.5
    assert found.watts == 10.0
    assert found.apw.value == pytest.approx(0.05)
    assert found.apj.value == pytest.approx(0.5 / 20.0)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(3), 0
    for turn in range(100):
        tried = [Tried(bool(right), 5.0, 1.0) for right in rng.random(80) < 0.6]
        accuracy = score(tried, turn).accuracy
        held += accuracy.low <= 0.6 <= accuracy.high
    assert 88 <= held <= 100


def test_more_queries_narrow_the_interval() -> None:
    few, many = (score([Tried(i % 2 == 0, 1.0, 1.0) for i in range(n)]).accuracy for n in (10, 1000))
    assert many.high - many.low < (few.high - few.low) / 5


@pytest.mark.parametrize("tried", [[], [Tried(True, 0.0, 1.0)], [Tried(True, 1.0, 0.0)]])
def test_what_was_not_measured_is_refused(tried: list[Tried]) -> None:
    with pytest.raises(ValueError, match="expected"):
        score(tried)


SMALL = [Tried(i < 80, 1.0, 1.0) for i in range(100)]
LARGE = [Tried(True, 10.0, 1.0) for _ in range(100)]


def test_an_oracle_wastes_nothing_and_a_worse_router_pays_for_its_mistakes() -> None:
    oracle = routed(SMALL, LARGE, 1.0, charged=True)
    assert (oracle.joules, oracle.accuracy) == (80.0 + 200.0, 1.0)
    free, charged = (routed(SMALL, LARGE, 0.8, charged=charged, seed=1) for charged in (False, True))
    assert charged.joules > free.joules > oracle.joules
    assert charged.joules - free.joules == sum(1.0 for _ in range(round(charged.joules - free.joules)))
    assert charged.accuracy == 1.0


def test_different_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="same queries"):
        routed(SMALL, LARGE[:3], 1.0, charged=True)
