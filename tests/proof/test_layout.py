"""Pieces cover every tensor exactly once, lie on multiples of their size, and leave no gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.proof import field
from shoal.proof.layout import Interval, intervals, layout, pack, unpack

shapes = st.lists(st.lists(st.integers(1, 21), max_size=3).map(tuple), min_size=1, max_size=5)


def test_intervals_are_the_binary_expansion() -> None:
    assert intervals(576) == (Interval(0, 9), Interval(512, 6))
    assert intervals(1) == (Interval(0, 0),)
    assert intervals(0) == ()
    for length in range(200):
        found = intervals(length)
        assert [*range(length)] == [i for interval in found for i in range(interval.start, interval.stop)]
        assert all(interval.start % (1 << interval.bits) == 0 for interval in found)


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_packing_is_a_bijection_without_gaps(given_shapes: list[tuple[int, ...]]) -> None:
    plan = layout(given_shapes)
    total = sum(int(np.prod(shape)) for shape in given_shapes)
    assert plan.length == total
    assert plan.bits == (total - 1).bit_length()
    end = 0
    for piece in plan.pieces:
        assert piece.offset == end
        assert piece.offset % (1 << piece.bits) == 0
        end += 1 << piece.bits
    assert end == total
    numbers = iter(range(1, total + 1))
    tensors = [np.array([next(numbers) for _ in range(int(np.prod(s)))], np.int64).reshape(s) for s in given_shapes]
    packed = pack(plan, tensors)
    assert sorted(packed.tolist()) == [*range(1, total + 1)]
    for tensor, back in zip(tensors, unpack(plan, packed), strict=True):
        assert (tensor.astype(np.uint64) == back).all()


def test_signs_kinds_and_padding() -> None:
    plan = layout([(3,), (), (2, 2)])
    packed = pack(plan, [np.array([-1, 2, -3], np.int8), np.array(-7), np.arange(4, dtype=np.int16).reshape(2, 2)], 16)
    assert field.to_ints(packed).tolist() == [0, 1, 2, 3, -1, 2, -3, -7] + [0] * 8
    with pytest.raises(ValueError, match="expected a tensor of shape"):
        pack(plan, [np.zeros(4, np.int8), np.array(1), np.zeros((2, 2), np.int8)])


def test_a_part_of_a_tensor_may_be_any_layout_in_memory() -> None:
    tensor = np.arange(24, dtype=np.int32).reshape(4, 6).T
    plan = layout([tensor.shape])
    assert (unpack(plan, pack(plan, [tensor]))[0] == tensor.astype(np.uint64)).all()
