"""How much of a draft is computed: by what it brings, by what it costs, and not for ever by either."""

from __future__ import annotations

import pytest

from shoal.engine.drafts.costs import BEFORE, ROWS, StepTimes
from shoal.engine.drafts.draft import Draft
from shoal.engine.drafts.policy import Policy, Record


def draft(length: int = 16, match: int = 20) -> Draft:
    return Draft(tuple(range(length)), (1.0,) * length, "own", match)


def taught(right: int, of: int, times: int = 40, record: Record | None = None) -> Policy:
    policy = Policy(StepTimes())
    for _ in range(times):
        policy.learn(draft(of), of, right, record or Record())
    return policy


def test_good_drafts_are_computed_whole_and_bad_ones_not_at_all() -> None:
    assert taught(16, 16).length(draft(), Record(), 1, 1.0)[0] == 16
    assert taught(0, 16, times=400).length(draft(), Record(), 1, 1.0)[0] <= 1


def test_a_full_batch_ends_drafting() -> None:
    policy = taught(3, 4)
    alone, _ = policy.length(draft(), Record(), 1, 1.0)
    crowded, _ = policy.length(draft(), Record(), 64, 64.0)
    assert alone > 2
    assert crowded == 0


def test_one_sequence_that_guesses_badly_is_turned_down_alone() -> None:
    bad = Record()
    policy = taught(16, 16)
    for _ in range(12):
        policy.learn(draft(1), 1, 0, bad)
    for _ in range(30):
        policy.learn(draft(16), 16, 16, Record())
    assert policy.length(draft(), bad, 1, 1.0)[0] < policy.length(draft(), Record(), 1, 1.0)[0]


def test_what_was_turned_down_is_tried_again() -> None:
    policy = Policy(StepTimes())
    for _ in range(400):
        policy.learn(draft(1, match=1), 1, 0, Record())
    times = StepTimes()
    for _ in range(300):
        times.learn(2, 1.5 * times(1))  # a second row is dear here, so a poor chance is not worth it
    policy.times = times
    assert policy.length(draft(1), Record(), 1, 1.0)[0] == 1
    assert policy.length(draft(1, match=1), Record(), 1, 1.0)[0] == 0
    tries = sum(policy.length(draft(1, match=1), Record(), 1, 1.0)[0] for _ in range(20))
    assert tries == 0, "not at once"


def test_the_promise_is_what_was_right_before() -> None:
    policy = taught(1, 2, times=200)
    _, promised = policy.length(draft(1), Record(), 1, 1.0)
    assert promised == pytest.approx(0.5, abs=0.1)


def test_times_start_with_the_expected_shape_and_follow_measurements() -> None:
    times = StepTimes()
    assert [times(rows) for rows in ROWS] == pytest.approx(BEFORE)
    for _ in range(400):
        times.learn(1, 0.004)
        times.learn(8, 0.005)
    assert times(1) == pytest.approx(0.004, rel=0.1)
    assert times(8) == pytest.approx(0.005, rel=0.1)
    assert times(1) < times(6) < times(8) * 1.3


def test_one_stall_does_not_undo_what_is_known() -> None:
    times = StepTimes()
    for _ in range(100):
        times.learn(4, 0.004)
    times.learn(4, 4.0)
    assert times(4) < 0.0045


def test_times_ignore_clocks_that_stand_still_and_huge_steps() -> None:
    times = StepTimes()
    times.learn(1, 0.0)
    times.learn(5000, 1.0)
    assert times(1) == 1.0
    assert times(1024) == pytest.approx(2 * BEFORE[-1])
