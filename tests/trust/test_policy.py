"""Which answers are looked at, what a dispute escalates to, and what sampling promises."""

from __future__ import annotations

import math
import random

import pytest

from shoal.core.errors import InvalidRequest
from shoal.trust.policy import (
    ESCALATION,
    Draw,
    Policy,
    answers_needed,
    detection,
    least_stake,
    next_tier,
    parse_policy,
)
from shoal.trust.verdict import TIERS, Verdict


def test_a_policy_is_written_as_tier_and_rate() -> None:
    assert parse_policy("fingerprint:0.05") == Policy("fingerprint", 0.05)
    assert parse_policy("proof") == Policy("proof", 1.0)
    assert parse_policy(str(Policy("distribution", 0.25))) == Policy("distribution", 0.25)


@pytest.mark.parametrize("text", ["", "none", "finger:0.1", "proof:", "proof:0", "proof:1.1", "proof:x", "proof:nan"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected TIER:RATE"):
        parse_policy(text)


def test_draws_are_repeatable_secret_and_of_the_stated_weight() -> None:
    policy = Policy("fingerprint", 0.05)
    hashes = [number.to_bytes(32, "big") for number in range(20_000)]
    one, other = Draw(b"one" * 11), Draw(b"two" * 11)
    drawn = [one.is_drawn(policy, item) for item in hashes]
    assert drawn == [one.is_drawn(policy, item) for item in hashes]
    assert abs(sum(drawn) - 1000) < 5 * math.sqrt(950)
    both = sum(a and other.is_drawn(policy, item) for a, item in zip(drawn, hashes, strict=True))
    assert both < 100, "another secret draws independently: 50 expected"
    assert all(one.is_drawn(Policy("fingerprint", 1.0), item) for item in hashes)
    assert b"one" not in repr(one).encode()


def test_disputes_go_up_and_end() -> None:
    failed = Verdict("fingerprint", "fail", "")
    assert next_tier(Verdict("fingerprint", "pass", ""), TIERS) is None
    assert next_tier(failed, ("distribution", "proof")) == "distribution"
    assert next_tier(failed, ("distribution", "proof"), tried=("distribution",)) == "proof"
    assert next_tier(failed, ("fingerprint",)) is None
    assert next_tier(Verdict("proof", "fail", ""), TIERS) is None
    for tier, higher in ESCALATION.items():
        assert tier not in higher


def test_detection_follows_the_formula_and_a_simulation() -> None:
    assert detection(4603, 0.01, 0.1) == pytest.approx(0.99, abs=1e-4)
    assert detection(90, 0.05, 1.0) == pytest.approx(0.99, abs=2e-3)
    assert detection(10, 0.0, 1.0) == 0.0
    assert detection(1, 1.0, 1.0) == 1.0
    assert detection(0, 1.0, 1.0) == 0.0
    coins = random.Random(7)
    rounds = 4000
    seen = sum(any(coins.random() < 0.2 * 0.3 * 0.5 for _ in range(20)) for _ in range(rounds)) / rounds
    assert abs(seen - detection(20, 0.2, 0.3, power=0.5)) < 5 * math.sqrt(0.25 / rounds)


def test_answers_needed_is_the_inverse() -> None:
    for rate, fraud in ((0.01, 0.1), (0.05, 1.0), (1.0, 1.0)):
        count = answers_needed(0.99, rate, fraud)
        assert detection(count, rate, fraud) >= 0.99
        assert count == 1 or detection(count - 1, rate, fraud) < 0.99
    with pytest.raises(ValueError, match="expected fraud"):
        answers_needed(0.99, 0.1, 0.0)
    with pytest.raises(ValueError, match="shares"):
        detection(1, 2.0, 0.5)


def test_a_single_fraud_pays_unless_more_is_at_stake() -> None:
    assert least_stake(0.05, gain=1.0) == pytest.approx(19.0)
    assert least_stake(1.0, gain=1.0) == 0.0
    assert least_stake(0.0, gain=1.0) == math.inf
