"""The selector: every cell of its tables and every rule, and that impossible wishes are refused with reasons."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest

from shoal.core.errors import InvalidRequest
from shoal.trust.select import ENOUGH, NEEDS, SAMPLE_RATE, Means, Stakes, Strength, Trust, Wish, select
from shoal.trust.verdict import TIERS, Tier

ALL: dict[Tier, Means] = {
    "fingerprint": Means(0.2, 0.5),
    "distribution": Means(0.9, 3.0),
    "freivalds": Means(0.5, 1.0),
    "proof": Means(500.0, 120.0, most_tokens=64),
    "attestation": Means(0.01, 0.1),
}


@pytest.mark.parametrize(
    ("stakes", "trust", "tier", "rate"),
    [
        ("low", "known", None, 0.0),
        ("low", "member", "fingerprint", SAMPLE_RATE),
        ("low", "stranger", "fingerprint", SAMPLE_RATE),
        ("medium", "known", "fingerprint", SAMPLE_RATE),
        ("medium", "member", "fingerprint", 1.0),
        ("medium", "stranger", "freivalds", 1.0),
        ("high", "known", "fingerprint", 1.0),
        ("high", "member", "freivalds", 1.0),
        ("high", "stranger", "freivalds", 1.0),
    ],
)
def test_every_cell(stakes: Stakes, trust: Trust, tier: Tier | None, rate: float) -> None:
    choice = select(Wish(stakes, trust, 100), ALL)
    assert (choice.tier, choice.rate) == (tier, rate)
    assert f"{stakes} stakes, a {trust} peer" in choice.why


def test_the_tables_are_whole_and_more_trust_never_needs_more() -> None:
    strengths = list(get_args(Strength))
    assert set(NEEDS) == set(itertools.product(get_args(Stakes), get_args(Trust)))
    assert set(ENOUGH) == set(strengths)
    assert {tier for tiers in ENOUGH.values() for tier in tiers} == set(TIERS)
    for stakes in get_args(Stakes):
        needs = [strengths.index(NEEDS[stakes, trust]) for trust in get_args(Trust)]
        assert needs == sorted(needs)
    for weaker, stronger in itertools.pairwise(strengths[1:]):
        assert set(ENOUGH[stronger]) <= set(ENOUGH[weaker])


def test_a_secret_prompt_goes_to_no_verifiers() -> None:
    have = {tier: ALL[tier] for tier in ("distribution", "attestation")}
    wish = Wish("high", "member", 100, is_secret=True)
    assert select(wish, have).tier == "attestation"
    assert select(replace(wish, is_secret=False), have).tier == "distribution"
    assert "shows the prompt" in select(wish, have).why


def test_what_must_convince_others_is_not_checked_in_private() -> None:
    wish = Wish("high", "stranger", 64, budget=1000, is_lasting=True)
    assert select(wish, ALL).tier == "proof"
    with pytest.raises(InvalidRequest, match="not freivalds: it convinces this node alone") as refused:
        select(replace(wish, size_tokens=65), ALL)
    assert "not proof: it checks at most 64 tokens, these are 65" in str(refused.value)
    assert "not fingerprint: too weak for this" in str(refused.value)


def test_what_comes_too_late_is_passed_over() -> None:
    wish = Wish("medium", "member", 100, latency_s=0.3)
    choice = select(wish, ALL)
    assert choice.tier == "attestation"
    assert "it takes 0.5 s, 0.3 s are allowed" in choice.why
    with pytest.raises(InvalidRequest, match="no check meets the wish"):
        select(replace(wish, latency_s=0.0), ALL)


def test_a_small_budget_thins_a_sample_but_never_a_check_that_must_be() -> None:
    sampled = select(Wish("low", "stranger", 100, budget=0.002), ALL)
    assert (sampled.tier, sampled.rate) == ("fingerprint", pytest.approx(0.01))
    assert select(Wish("low", "stranger", 100, budget=0.0001), ALL).tier == "attestation"
    with pytest.raises(InvalidRequest, match=r"costs 0\.5 times the answer, 0\.4 times are allowed"):
        select(Wish("high", "stranger", 100, budget=0.4), ALL)


def test_a_tier_that_is_not_here_is_named() -> None:
    with pytest.raises(InvalidRequest, match="not proof: this node cannot do it"):
        select(Wish("high", "stranger", 100), {"fingerprint": ALL["fingerprint"]})


@pytest.mark.parametrize("change", [{"budget": -1.0}, {"size_tokens": 0}, {"latency_s": -1.0}])
def test_wishes_that_mean_nothing_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="expected tokens"):
        select(replace(Wish("low", "known", 1), **change), ALL)  # type: ignore[arg-type]
