"""Freivalds' check: never against the truth, against lies as rarely as the bound says."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import InvalidRequest
from shoal.trust.freivalds import (
    PRIMES,
    Ints,
    Product,
    bits,
    draw,
    error_bound,
    is_product,
    matches,
    primes_for,
    system_coins,
    times,
    worst_chance,
)


def seeded(seed: int) -> object:
    random = np.random.default_rng(seed)
    return lambda prime, shape: random.integers(0, prime, shape)


def a_product(seed: int, kind: type = np.int8) -> Product:
    random = np.random.default_rng(seed)
    rows, inner, columns = random.integers(1, 20, 3)
    info = np.iinfo(kind)
    x = random.integers(info.min, info.max, (rows, inner), kind, endpoint=True)
    w = random.integers(-128, 127, (inner, columns), np.int8, endpoint=True)
    return Product(x, w, x.astype(np.int64) @ w.astype(np.int64))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([np.int8, np.int16, np.int32]))
def test_a_true_product_always_passes_and_a_false_one_does_not(seed: int, kind: type) -> None:
    product = a_product(seed, kind)
    assert is_product(product)
    y = product.y.copy()
    random = np.random.default_rng(seed + 1)
    y[random.integers(len(y)), random.integers(y.shape[1])] += int(random.choice([-1, 1, 2**40]))
    assert not is_product(Product(product.x, product.w, y))


def test_extremes_do_not_overflow() -> None:
    x = np.full((3, 70_000), -(2**31), np.int64)
    w = np.full((70_000, 2), -128, np.int8)
    y = np.full((3, 2), 70_000 * 2**38, np.int64)
    assert is_product(Product(x, w, y))
    y[1, 1] += 1
    assert not is_product(Product(x, w, y))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(PRIMES), st.sampled_from([6, 30, 62]))
def test_times_agrees_with_pythons_integers(seed: int, prime: int, width: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.integers(-(2**width), 2**width, (3, 9), np.int64)
    vectors = random.integers(0, prime, (9, 2), np.int64)
    wanted = (matrix.astype(object) @ vectors.astype(object)) % prime
    assert (times(matrix, vectors, prime) == wanted.astype(np.int64)).all()


def test_a_difference_that_is_a_multiple_of_one_prime_meets_another() -> None:
    """y + (2^31 - 1) is y modulo the first prime, whatever r: equality over the integers needs a second one."""
    product = a_product(3)
    lie = Product(product.x, product.w, product.y + PRIMES[0])
    assert matches(lie, draw(product.w, PRIMES[0], 2))
    assert not is_product(lie)
    with pytest.raises(InvalidRequest, match="stay below"):
        primes_for(PRIMES[0] * PRIMES[1] * PRIMES[2])


@pytest.mark.parametrize("prime", [3, 7, 31])
def test_a_small_prime_lets_lies_pass_as_often_as_the_bound(prime: int) -> None:
    """One wrong element: it passes exactly where its column's coin is 0. 30,000 draws, five standard deviations."""
    random = np.random.default_rng(prime)
    x, w = random.integers(-1, 2, (2, 3)), random.integers(-1, 2, (3, 4))
    y = x @ w
    y[1, 2] += 1
    count = 30_000
    secret = draw(w, prime, count, seeded(prime))  # type: ignore[arg-type]
    passed = (times(x, secret.s, prime) == times(y, secret.r, prime)).all(axis=0)
    chance = 1 / prime
    assert abs(passed.mean() - chance) < 5 * (chance * (1 - chance) / count) ** 0.5
    pairs = passed[::2] & passed[1::2]
    assert abs(pairs.mean() - chance**2) < 5 * (chance**2 / len(pairs)) ** 0.5


def test_an_adaptive_liar_who_knows_r_always_passes() -> None:
    """Why the coins are drawn after the answer is fixed and shown to nobody."""
    product = a_product(8)
    assert product.y.shape[1] >= 2
    secret = draw(product.w, PRIMES[0], 1, lambda prime, shape: np.full(shape, 2, np.int64))
    y = product.y.copy()
    y[0, 0] += 1
    y[0, 1] -= 1
    assert matches(Product(product.x, product.w, y), secret)
    assert not is_product(Product(product.x, product.w, y))


def test_the_bound_is_computed_from_what_was_run() -> None:
    assert bits(error_bound(1)) == pytest.approx(31, abs=0.001)
    assert bits(error_bound(2, 211)) == pytest.approx(62 - np.log2(211), abs=0.001)
    assert bits(error_bound(2, 211, 1000)) == pytest.approx(62 - np.log2(211_000), abs=0.001)
    assert error_bound(1, 2**40) == 1
    assert worst_chance(7) > Fraction(1, 7)
    assert bits(Fraction(0)) == float("inf")


def test_the_systems_coins_are_in_range_and_differ() -> None:
    coins: Ints = system_coins(5, (1000,))
    assert coins.min() == 0
    assert coins.max() == 4
    assert abs(np.bincount(coins) - 200).max() < 70


def test_a_secret_shows_nothing_when_printed() -> None:
    secret = draw(np.ones((2, 2), np.int8), PRIMES[0], 1)
    assert str(int(secret.r[0, 0])) not in repr(secret)


@pytest.mark.parametrize(
    ("x", "w", "y"),
    [
        (np.ones((1, 2), int), np.ones((3, 1), int), np.ones((1, 1), int)),
        (np.ones((1, 2), int), np.ones((2, 1), int), np.ones((2, 1), int)),
        (np.ones((1, 2)), np.ones((2, 1), int), np.ones((1, 1), int)),
        (np.ones((0, 2), int), np.ones((2, 1), int), np.ones((0, 1), int)),
        (np.ones(2, int), np.ones((2, 1), int), np.ones((1, 1), int)),
    ],
)
def test_what_is_no_integer_product_is_refused(x: Ints, w: Ints, y: Ints) -> None:
    with pytest.raises(InvalidRequest):
        Product(x, w, y)
    with pytest.raises(InvalidRequest, match="repetition"):
        is_product(a_product(1), repetitions=0)
