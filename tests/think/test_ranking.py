"""Pairs, votes and the fit, against `choix` and against what must hold."""

from __future__ import annotations

import itertools
from collections import Counter

import choix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.think.bradley_terry import fit
from shoal.think.pairs import Pair, all_pairs, judged_pairs, shuffled, swarm_pairs
from shoal.think.votes import Ballot, Vote, flips, good_enough, wins


@given(st.integers(0, 40))
def test_a_judge_makes_about_three_comparisons_an_answer(count: int) -> None:
    pairs = swarm_pairs(count)
    assert len(pairs) == len(set(pairs))
    assert all(Pair(pair.second, pair.first) in pairs for pair in pairs)
    assert len(pairs) == (2 * (count - 1) + 2 * (count // 2) if count > 3 else 2 * max(0, count - 1))


@given(st.integers(2, 30))
def test_every_two_answers_are_connected(count: int) -> None:
    reached, edges = {0}, {(pair.first, pair.second) for pair in swarm_pairs(count)}
    for _ in range(count):
        reached |= {b for a, b in edges if a in reached}
    assert reached == set(range(count))


def test_judges_see_the_answers_in_orders_of_their_own() -> None:
    orders = {shuffled(7, seed=1, judge=judge) for judge in range(20)}
    assert len(orders) > 15
    assert shuffled(7, 1, 3) == shuffled(7, 1, 3)
    places = Counter(shuffled(4, 9, judge)[0] for judge in range(4000))
    assert all(900 < places[i] < 1100 for i in range(4))
    assert sorted(judged_pairs(5, 1, 2), key=str) != list(swarm_pairs(5))


@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_the_fit_is_choix_on_the_same_votes(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 9, (count, count)).astype(float)  # all compared: the maximum exists without a prior
    np.fill_diagonal(table, 0)
    ours = fit(table, prior=0.0)
    games = [(i, j) for i, j in itertools.permutations(range(count), 2) for _ in range(int(table[i, j]))]
    theirs = choix.ilsr_pairwise(count, games, max_iter=1000, tol=1e-12)
    np.testing.assert_allclose(ours.scores, theirs - theirs.mean(), atol=1e-6)


def test_who_always_wins_is_first_and_finite() -> None:
    votes = [Vote(0, 0, 1, 1.0), Vote(0, 1, 0, 0.0), Vote(0, 1, 2, 1.0), Vote(0, 2, 1, 0.0)]
    found = fit(wins(votes, 3, {0: 1.0}))
    assert found.order() == (0, 1, 2)
    assert np.isfinite(found.scores).all()
    assert found.probability(0, 2) > found.probability(0, 1) > 0.5


def test_an_answer_nobody_compared_is_average_and_wide() -> None:
    found = fit(wins([Vote(0, 0, 1, 1.0)] * 20, 3, {0: 1.0}))
    assert found.scores[1] < found.scores[2] < found.scores[0]
    assert found.half_widths[2] > found.half_widths[0]


@given(st.integers(1, 200))
def test_more_votes_narrow_the_interval(times: int) -> None:
    few = fit(np.array([[0, 2.0], [1.0, 0]]))
    many = fit(np.array([[0, 2.0], [1.0, 0]]) * (times + 1))
    assert many.half_widths[0] < few.half_widths[0]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, truth, held = np.random.default_rng(5), np.array([0.9, 0.3, -0.4, -0.8]), 0
    for _ in range(200):
        table = np.zeros((4, 4))
        for i, j in itertools.combinations(range(4), 2):
            table[i, j] = rng.binomial(30, 1 / (1 + np.exp(truth[j] - truth[i])))
            table[j, i] = 30 - table[i, j]
        found = fit(table)
        held += int((np.abs(found.scores - truth) <= found.half_widths).sum())
    assert 0.92 < held / 800 < 0.985


@pytest.mark.parametrize("table", [np.zeros((2, 3)), -np.ones((2, 2)), np.full((2, 2), np.nan), np.ones((2, 2))])
def test_tables_that_are_none_are_refused(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit(table)


def test_nothing_to_rank_is_no_error() -> None:
    assert fit(np.zeros((0, 0))).order() == ()
    assert fit(np.zeros((1, 1))).order() == (0,)


def test_a_judge_without_weight_changes_nothing() -> None:
    votes = [Vote(0, 0, 1, 1.0), *[Vote(1, 1, 0, 1.0)] * 50]
    assert fit(wins(votes, 2, {0: 1.0})).order() == (0, 1)
    assert fit(wins(votes, 2, {0: 1.0, 1: 1.0})).order() == (1, 0)


def test_the_filter_keeps_what_half_of_the_weight_finds_good_and_never_nothing() -> None:
    ballots = [Ballot(0, good=frozenset({0})), Ballot(1, good=frozenset({0, 1})), Ballot(2)]
    assert good_enough(ballots, 3, {0: 1.0, 1: 1.0, 2: 9.0}) == {0, 1}
    assert good_enough(ballots, 3, {0: 3.0, 1: 1.0}) == {0}
    assert good_enough([Ballot(0, good=frozenset())], 2, {0: 1.0}) == {0, 1}
    assert good_enough([], 2, {}) == {0, 1}


def test_a_judge_who_votes_by_position_is_seen() -> None:
    assert flips([Vote(0, 0, 1, 1.0), Vote(0, 1, 0, 1.0)]) == 1.0
    assert flips([Vote(0, 0, 1, 1.0), Vote(0, 1, 0, 0.0)]) == 0.0
    assert flips([Vote(0, 0, 1, 1.0)]) == 0.0


def test_a_round_robin_has_every_ordered_pair() -> None:
    assert len(all_pairs(7)) == 42
