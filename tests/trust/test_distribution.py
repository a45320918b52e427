"""The distribution tier's arithmetic: distances that cannot be dodged, votes that liars cannot turn, exact odds."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import PeerFault
from shoal.trust.distribution import Claims, Ranks, check_claims, distance, mean_distance, vote
from shoal.trust.distribution_odds import bad_drawn, captured, detected, falsely_accused


def ranks_of(p: np.ndarray, m: int, gap: float = 0.0) -> Ranks:
    order = np.argsort(-p, kind="stable")[:m]
    return Ranks(tuple(order.tolist()), tuple(np.log(p[order]).tolist()), gap)


def a_distribution(random_: np.random.Generator, size: int = 20) -> np.ndarray:
    return random_.dirichlet(np.full(size, 0.5)) + 1e-12


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_the_truncated_distance_is_never_above_the_true_one_and_reaches_it(seed: int, m: int) -> None:
    source = np.random.default_rng(seed)
    p, q = a_distribution(source), a_distribution(source)
    exact = float(np.abs(p - q).sum() / 2)
    assert distance(ranks_of(p, m), ranks_of(q, m)) <= exact + 1e-6
    assert distance(ranks_of(p, 20), ranks_of(q, 20)) == pytest.approx(exact, abs=1e-6)
    assert distance(ranks_of(p, m), ranks_of(p, m)) == pytest.approx(0.0, abs=1e-12)


def test_naming_other_tokens_hides_nothing() -> None:
    """Buckets of "the rest" would find two lists without a common token equal."""
    honest = Ranks((1, 2, 3), (math.log(0.6), math.log(0.3), math.log(0.05)))
    liar = Ranks((7, 8, 9), (math.log(0.4), math.log(0.3), math.log(0.2)))
    assert distance(honest, liar) > 0.7


def claims(gap: float, shift: float = 0.0, positions: int = 8) -> Claims:
    top = Ranks((1, 2), (math.log(0.6 - shift), math.log(0.3 + shift)), gap)
    return Claims((top,) * positions)


HONEST, CHEAT = claims(0.001), claims(0.4)


def test_the_median_of_honest_verifiers_passes_and_fails() -> None:
    assert vote(3, [HONEST] * 3, claims(0.0)).outcome == "pass"
    assert vote(3, [CHEAT] * 3, None).outcome == "fail"
    assert vote(3, [HONEST] * 3, claims(0.0, shift=-0.29)).outcome == "fail"
    assert vote(3, [claims(0.015)] * 3, None).outcome == "unsure"


@pytest.mark.parametrize("k", [3, 5, 7])
def test_fewer_liars_than_half_change_nothing(k: int) -> None:
    liars = (k - 1) // 2
    honest = k - liars
    for said in (HONEST, CHEAT):
        other = CHEAT if said is HONEST else HONEST
        wanted = "pass" if said is HONEST else "fail"
        assert vote(k, [said] * honest + [other] * liars, None).outcome == wanted
    turned = vote(k, [CHEAT] * (liars + 1) + [HONEST] * (honest - 1), None)
    assert turned.outcome == "fail", "one liar more is a majority: the bound is sharp"


def test_silence_is_no_vote() -> None:
    assert vote(5, [HONEST] * 2, None).outcome == "unsure"
    assert vote(4, [HONEST] * 2, None).outcome == "unsure"
    assert vote(5, [HONEST] * 3, None).outcome == "pass"
    assert vote(5, [], None).outcome == "unsure"


def test_who_stands_apart_is_counted() -> None:
    verdict = vote(5, [HONEST] * 4 + [claims(0.0, shift=-0.29)], None)
    assert next(item for item in verdict.findings if item.name == "apart").measured == 1.0


GOOD = Ranks((1, 2), (-0.5, -1.5), 0.1)


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, tokens=()),
        replace(GOOD, tokens=(1, 1)),
        replace(GOOD, tokens=(1, -1)),
        replace(GOOD, tokens=(1, 2, 3)),
        replace(GOOD, logprobs=(-1.5, -0.5)),
        replace(GOOD, logprobs=(0.1, -0.5)),
        replace(GOOD, logprobs=(math.nan, -0.5)),
        replace(GOOD, logprobs=(-0.5, -math.inf)),
        replace(GOOD, gap=-0.1),
        replace(GOOD, gap=math.nan),
        Ranks(tuple(range(9)), tuple(-3.0 - i for i in range(9))),
    ],
)
def test_claims_no_model_makes_are_the_peers_fault(bad: Ranks) -> None:
    check_claims(Claims((GOOD,)), 1, 8)
    with pytest.raises(PeerFault):
        check_claims(Claims((bad,)), 1, 8)
    with pytest.raises(PeerFault, match="expected 2 positions"):
        check_claims(Claims((GOOD,)), 2, 8)


def test_unequal_claims_are_not_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        mean_distance(claims(0, positions=1), claims(0, positions=2))


# ---- how many to draw -------------------------------------------------------------------------------------------


def test_the_odds_agree_with_a_simulation() -> None:
    peers, bad, drawn, power, rounds = 30, 9, 5, 0.8, 20_000
    source = random.Random(3)
    taken = seen = accused = 0
    for _ in range(rounds):
        colluders = sum(peer < bad for peer in source.sample(range(peers), drawn))
        taken += 2 * colluders >= drawn
        seen += sum(source.random() < power for _ in range(drawn - colluders)) > drawn / 2
        accused += colluders + sum(source.random() < 0.05 for _ in range(drawn - colluders)) > drawn / 2
    for count, exact in (
        (taken, float(captured(peers, bad, drawn))),
        (seen, detected(peers, bad, drawn, power)),
        (accused, falsely_accused(peers, bad, drawn, 0.05)),
    ):
        assert abs(count / rounds - exact) < 5 * math.sqrt(exact * (1 - exact) / rounds)


def test_odds_are_distributions_and_known_values() -> None:
    assert sum(bad_drawn(50, 10, 7)) == 1
    assert float(captured(1000, 100, 3)) == pytest.approx(0.028, abs=1e-3)  # 3a^2 - 2a^3 at a = 0.1
    assert captured(10, 0, 5) == 0
    assert detected(10, 0, 3, 1.0) == 1.0
    assert detected(10, 10, 3, 1.0) == 0.0
    assert falsely_accused(10, 0, 3, 0.0) == 0.0
    with pytest.raises(ValueError, match="expected 0 <= bad"):
        bad_drawn(5, 6, 3)
    with pytest.raises(ValueError, match="expected 0 <= bad"):
        bad_drawn(5, 1, 6)
