"""Standings, exams and collusion: pure figures."""

from __future__ import annotations

import random

import pytest

from shoal.core.errors import LocalError
from shoal.trust.reputation.collusion import flags, tail
from shoal.trust.reputation.exam import Asked, Item, Mark, Rules, fresh, mark, order, passes
from shoal.trust.reputation.standing import Standing, seen, slashed, weight


def after(accuracies: list[float], is_admitted: bool = True) -> Standing:
    standing = Standing(is_admitted=is_admitted)
    for accuracy in accuracies:
        standing = seen(standing, "judging", accuracy)
    return standing


def test_reputation_is_the_moving_average_of_the_paper() -> None:
    assert after([1.0, 1.0, 0.0]).judging == pytest.approx(0.9 * (0.9 * 0.1 + 0.1))
    both = seen(seen(Standing(), "answering", 1.0), "judging", 0.5)
    assert (both.answering, both.judging) == (pytest.approx(0.1), pytest.approx(0.05))
    with pytest.raises(ValueError, match="accuracy from 0 to 1"):
        seen(Standing(), "judging", 1.1)


def test_the_new_the_unexamined_coins_liars_and_cheats_weigh_nothing() -> None:
    assert weight(Standing(is_admitted=True)) == 0.0
    assert weight(after([1.0] * 50, is_admitted=False)) == 0.0
    assert weight(after([0.5] * 200)) == pytest.approx(0.0, abs=1e-9)
    assert weight(after([0.0] * 50)) == 0.0
    assert weight(slashed(after([1.0] * 50))) == 0.0
    assert weight(after([1.0] * 50)) > 0.98


def test_a_cheat_under_a_new_name_begins_at_nothing_and_one_that_turns_bad_falls() -> None:
    good = after([1.0] * 50)
    assert weight(Standing()) == 0.0 < weight(good)
    weights = [weight(after([1.0] * 50 + [0.0] * wrong)) for wrong in range(8)]
    assert weights == sorted(weights, reverse=True)
    assert (weights[6] > 0.0, weights[7]) == (True, 0.0)


def items(count: int, seed: int) -> list[Item]:
    return [Item(f"question {seed % 50}/{i}", "1", "2") for i in range(count)]


def test_items_are_never_asked_twice_and_the_source_may_run_dry() -> None:
    used: set[bytes] = set()
    draw = random.Random(1)
    drawn = [item.question for _ in range(10) for item in fresh(items, 20, used, draw)]
    assert len(set(drawn)) == 200
    with pytest.raises(LocalError, match="expected 2000 new calibration items"):
        fresh(lambda count, seed: items(3, seed), 2000, used, draw)


def test_every_item_is_asked_in_both_orders_and_counts_only_if_both_are_right() -> None:
    asked = order(20, random.Random(2))
    assert {(one.item, one.right_first) for one in asked} == {(i, first) for i in range(20) for first in (True, False)}
    knows = [1.0 if one.right_first else 0.0 for one in asked]
    assert mark(asked, knows) == Mark(20, 20, 0)
    assert mark(asked, [1.0] * 40) == Mark(0, 20, 20)
    assert mark(asked, [0.5] * 40).right == 0
    assert mark([Asked(0, True), Asked(0, False)], [0.9, 0.4]) == Mark(1, 1, 0)
    wrong = [1.0 - said if one.item < 4 else said for one, said in zip(asked, knows, strict=True)]
    assert not mark(asked, wrong).has_passed()
    assert mark(asked, [s if one.item != 3 else k for one, s, k in zip(asked, wrong, knows, strict=True)]).has_passed()


def test_the_chances_the_docstring_states() -> None:
    assert passes(0.5) == pytest.approx(0.0013, abs=1e-4)
    assert passes(0.25) < 1e-7
    assert passes(0.9) == pytest.approx(0.867, abs=1e-3)
    assert passes(1.0, Rules(3, 3)) == 1.0


def table(draw: random.Random, colluders: int = 0, honest: int = 6, count: int = 120) -> dict[str, dict[str, bool]]:
    """Honest judges are right 8 times in 10, on their own; colluders all say one thing of their leader's."""
    led = {str(i): draw.random() < 0.6 for i in range(count)}
    votes = {f"h{j}": {str(i): draw.random() < 0.8 for i in range(count)} for j in range(honest)}
    return votes | {f"c{j}": dict(led) for j in range(colluders)}


def test_colluders_are_flagged_and_honest_judges_as_rarely_as_stated() -> None:
    draw = random.Random(3)
    found = flags(table(draw, colluders=2))
    assert [(flag.a, flag.b) for flag in found] == [("c0", "c1")]
    assert found[0].agreed == found[0].common > found[0].expected
    alarms = sum(bool(flags(table(draw, honest=4, count=60), false_alarm=0.05, allowance=0.0)) for _ in range(200))
    assert alarms <= 200 * 0.05 + 8


def test_the_tail_is_the_binomials() -> None:
    assert tail(0, 10, 0.3) == pytest.approx(1.0)
    assert tail(10, 10, 0.5) == pytest.approx(2**-10)
    assert (tail(10, 10, 1.0), tail(1, 10, 0.0)) == (1.0, 0.0)
