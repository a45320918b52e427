"""Enough queries, and shapes that fit the vector."""

from __future__ import annotations

import math

import pytest

from shoal.proof.parameters import Parameters, choose_params


@pytest.mark.parametrize(("rate_bits", "queries"), [(1, 241), (2, 148), (3, 121), (4, 110)])
def test_a_hundred_bits_take_the_known_number_of_queries(rate_bits: int, queries: int) -> None:
    """((1 + rate) / 2)^t <= 2^-100: the counts of the literature, up to one for the radius's rounding."""
    params = Parameters(16, 12, rate_bits, queries)
    assert 99.9 < params.missed_bits < 101
    assert Parameters(16, 12, rate_bits, queries - 1).missed_bits < 100
    exact = ((1 + 2**-rate_bits) / 2) ** queries
    assert math.isclose(2**-params.missed_bits, exact, rel_tol=0.2)


@pytest.mark.parametrize("goal", ["bytes", "time"])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 16384, 30_000, 1 << 20, 1 << 26])
def test_choices_fit(size: int, goal: str) -> None:
    params = choose_params(size, 102, goal)  # type: ignore[arg-type]
    assert params.size - params.columns < size <= params.size
    assert params.missed_bits >= 102
    assert params.queries < params.length
    assert 1 << params.bits >= params.size
    assert params.depth == math.log2(params.length)
    assert params.combination_bits > 102


def test_the_smallest_opening_is_chosen_for_small_vectors() -> None:
    small = choose_params(20_000, 102)
    assert small == choose_params(20_000, 102, "bytes")
    assert small.opening_bytes < choose_params(20_000, 102, "time").opening_bytes
    assert small.opening_bytes < 65_000
    assert choose_params(1 << 26, 102).rate_bits == 1


def test_nonsense_is_refused() -> None:
    for size, bits in ((0, 100), (10, 0)):
        with pytest.raises(ValueError, match="at least one number"):
            choose_params(size, bits)
