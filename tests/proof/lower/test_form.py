"""Factors of axes: refinements and regroupings, against row-major order itself."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.proof.lower.form import axes_of_factors, flat, refine, regroup

factors = st.lists(st.integers(2, 4), max_size=4).map(tuple)


@given(factors, factors)
def test_a_refinement_refines_both_or_is_none(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    found = refine(first, second)
    for factors in (first, second):
        if found is not None and prod(first) == prod(second):
            assert prod(found) == prod(factors)
            assert regroup(found, factors) is not None
    assert refine(first, first) == first
    assert refine((), first) == first


def test_lengths_that_do_not_divide_have_no_refinement() -> None:
    assert refine((6, 4), (8, 3)) is None
    assert regroup((6, 4), (8, 3)) is None
    assert refine((2, 12), (4, 6)) == (2, 2, 6)


@settings(deadline=None)
@given(st.permutations([2, 2, 3]), st.integers(0, 3))
def test_regrouped_axes_count_in_row_major_order(order: list[int], cut: int) -> None:
    shape = (prod(order[:cut]), prod(order[cut:]))
    grouped = regroup(tuple(order), shape)
    assert grouped is not None
    places = np.indices(flat(grouped)).reshape(len(flat(grouped)), -1)
    indices = [sum(stride * places[number] for number, stride in terms) for terms in axes_of_factors(grouped)]
    whole = [np.broadcast_to(index, places.shape[1:]) for index in indices]
    assert np.array_equal(np.ravel_multi_index(whole, shape), np.arange(12))
