"""Reads and products against loops in Python integers; what could wrap is refused."""

from __future__ import annotations

from itertools import product as tuples
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.proof.circuit import Index
from shoal.proof.graph.exact import OutOfRange, contract, product, read, scaled, shifted

LENGTHS = (3, 2, 4, 2)


def plain_read(array: np.ndarray, indices: tuple[Index, ...], place: tuple[int, ...], tokens: np.ndarray) -> int:
    """One entry, the way circuit.py says it."""
    choices = []
    for index, length in zip(indices, array.shape, strict=True):
        at = index.offset + sum(stride * place[axis] for axis, stride in index.terms)
        at = int(tokens[at]) if index.gather else at
        choices.append(range(length) if index.summed else [at] if 0 <= at < length else [])
    return sum(int(array[where]) for where in tuples(*choices))


@st.composite
def reads(draw: Any) -> tuple[np.ndarray, tuple[Index, ...]]:
    """A random array with one random index for each axis; space axes are used once at most."""
    free = draw(st.permutations(range(len(LENGTHS))))
    indices, shape = [], []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["terms", "terms", "summed", "gather"]))
        shape.append(draw(st.integers(1, 5)))
        if kind == "summed":
            indices.append(Index(summed=True))
        elif kind == "gather" and free:
            indices.append(Index(((free.pop(), 1),), gather="tokens"))
        else:
            mine = [free.pop() for _ in range(draw(st.integers(0, min(2, len(free)))))]
            terms = tuple((axis, draw(st.sampled_from([-2, -1, 1, 2, 3]))) for axis in mine)
            indices.append(Index(terms, draw(st.integers(-3, 3))))
    return np.random.default_rng(draw(st.integers(0, 99))).integers(-9, 10, shape), tuple(indices)


@settings(max_examples=60, deadline=None)
@given(reads())
def test_a_read_is_what_the_loop_says(case: tuple[np.ndarray, tuple[Index, ...]]) -> None:
    array, indices = case
    tokens = np.array([4, 0, 3, 1])
    found = np.broadcast_to(read(array, indices, LENGTHS, {"tokens": tokens}), LENGTHS)
    for place in tuples(*(range(length) for length in LENGTHS)):
        assert found[place] == plain_read(array, indices, place, tokens)


@settings(max_examples=60, deadline=None)
@given(reads(), reads())
def test_a_contraction_is_what_the_loop_says(
    left: tuple[np.ndarray, tuple[Index, ...]], right: tuple[np.ndarray, tuple[Index, ...]]
) -> None:
    tokens = {"tokens": np.array([4, 0, 3, 1])}
    a, b = (read(*case, LENGTHS, tokens) for case in (left, right))
    whole = np.broadcast_to(a, LENGTHS) * np.broadcast_to(b, LENGTHS)
    assert np.array_equal(contract(a, b, LENGTHS[:2], LENGTHS[2:]), whole.sum(axis=(2, 3)))


def test_products_are_exact_beyond_floats() -> None:
    big = np.array([[[(1 << 30) + 1, (1 << 30) - 1]]])
    assert product(big, big.transpose(0, 2, 1))[0, 0, 0] == ((1 << 30) + 1) ** 2 + ((1 << 30) - 1) ** 2


def test_what_could_wrap_is_refused() -> None:
    big = np.array([[[1 << 31]]])
    with pytest.raises(OutOfRange, match="expected below 2\\^62"):
        product(big, big)
    with pytest.raises(OutOfRange, match="does not fit"):
        scaled(np.array([1 << 40]), 1 << 30)


@pytest.mark.parametrize(
    ("value", "shift", "rounded"), [(3, 1, 2), (-3, 1, -1), (5, 2, 1), (6, 2, 2), (-6, 2, -1), (-7, 0, -7)]
)
def test_halves_are_rounded_up(value: int, shift: int, rounded: int) -> None:
    assert shifted(np.array([value]), shift)[0] == rounded
