"""Reads and products of integer arrays that refuse to wrap around.

Products go through float64 (and so through BLAS) wherever every partial sum is below 2^53 and therefore exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from shoal.core.errors import LocalError
from shoal.proof.circuit import Index, Shape
from shoal.proof.graph.ir import Indices, Ints

EXACT_FLOAT = 1 << 53
EXACT_INT = 1 << 62
"""One bit below int64's end, so that the sum of two checked values is still exact."""


class OutOfRange(LocalError):
    """A value left the range its tensor declares, or would not fit 64 bits. The text names the place."""

    code = "out_of_range"


def magnitude(array: Ints) -> int:
    """The largest absolute value, 0 if empty."""
    return max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0


def read(array: Ints, indices: Indices, lengths: Shape, gathers: Mapping[str, Ints]) -> Ints:
    """`array[indices]` over the axes `lengths`; axes which no index mentions have length 1 in the result."""
    order: list[int] = []
    result = array
    for axis, index in enumerate(indices):
        result, axes = _pick(result, len(indices) - axis, index, lengths, gathers)
        order += axes
    # `result` has the axes of `order`, in that order; bring them into the order of the space, absent ones as length 1.
    result = result.transpose(sorted(range(len(order)), key=lambda position: order[position]))
    return result.reshape([length if axis in order else 1 for axis, length in enumerate(lengths)])


def _pick(
    array: Ints, remaining: int, index: Index, lengths: Shape, gathers: Mapping[str, Ints]
) -> tuple[Ints, list[int]]:
    """Replaces the first of the `remaining` last axes of `array` by the space axes its index mentions."""
    axis = array.ndim - remaining
    if index.summed:
        return array.sum(axis=axis, dtype=np.int64), []
    axes = [space_axis for space_axis, _ in index.terms]
    shape = tuple(lengths[space_axis] for space_axis in axes)
    if index.gather is None and index.offset == 0 and shape == (array.shape[axis],) and index.terms[0][1] == 1:
        return array, axes
    where = positions(index, lengths)
    if index.gather is not None:
        where = np.asarray(gathers[index.gather], np.int64)[where]
    inside = (where >= 0) & (where < array.shape[axis])
    taken = np.take(array, np.where(inside, where, 0), axis=axis)
    if not inside.all():
        taken = taken * inside.reshape((-1,) + (1,) * (remaining - 1))
    return taken.reshape(array.shape[:axis] + shape + array.shape[axis + 1 :]), axes


def positions(index: Index, lengths: Shape) -> Ints:
    """offset + sum of stride * i for all tuples of the mentioned axes, flat, the last term's axis moving fastest."""
    where = np.full(1, index.offset, np.int64)
    for axis, stride in index.terms:
        where = (where[:, None] + stride * np.arange(lengths[axis], dtype=np.int64)).reshape(-1)
    return where


def contract(left: Ints, right: Ints, space: Shape, summed: Shape) -> Ints:
    """Sum over the last len(summed) axes of left * right, both over space + summed with absent axes of length 1."""
    rank, scale = len(space), 1
    for axis in range(len(space) + len(summed) - 1, rank - 1, -1):
        left, right, factor = _sum_lonely_axis(left, right, axis, (*space, *summed)[axis])
        scale *= factor
    product = _matrix_product(left, right, rank)
    if scale != 1:
        product = scaled(product, scale)
    return np.broadcast_to(product, space)


def _sum_lonely_axis(left: Ints, right: Ints, axis: int, length: int) -> tuple[Ints, Ints, int]:
    """A summed axis that only one factor has is summed there; one that none has multiplies. Others stay."""
    has_left, has_right = left.shape[axis] != 1, right.shape[axis] != 1
    if has_left and not has_right:
        return left.sum(axis=axis, keepdims=True, dtype=np.int64), right, 1
    if has_right and not has_left:
        return left, right.sum(axis=axis, keepdims=True, dtype=np.int64), 1
    return left, right, 1 if has_left else length


def _matrix_product(left: Ints, right: Ints, rank: int) -> Ints:
    """Batched matrix product: batch axes are in both, rows in left alone, columns in right alone."""
    axes = range(rank)
    batch = [a for a in axes if (left.shape[a] == 1) == (right.shape[a] == 1)]
    rows = [a for a in axes if a not in batch and left.shape[a] != 1]
    columns = [a for a in axes if a not in batch and right.shape[a] != 1]
    inner = list(range(rank, left.ndim))
    a = left.transpose(batch + rows + columns + inner)
    b = right.transpose(batch + rows + inner + columns)
    sizes = [
        tuple(left.shape[x] for x in batch),
        tuple(left.shape[x] for x in rows),
        tuple(right.shape[x] for x in columns),
    ]
    depth = prod(left.shape[rank:])
    c = product(a.reshape(prod(sizes[0]), prod(sizes[1]), depth), b.reshape(prod(sizes[0]), depth, prod(sizes[2])))
    order = batch + rows + columns
    return c.reshape(sizes[0] + sizes[1] + sizes[2]).transpose([order.index(axis) for axis in axes])


def product(left: Ints, right: Ints) -> Ints:
    """Batched matrix product (batch, rows, depth) x (batch, depth, columns), exact, int64."""
    bound = magnitude(left) * magnitude(right) * left.shape[-1]
    if bound >= EXACT_INT:
        raise OutOfRange(f"a sum of {left.shape[-1]} products may reach {bound}, expected below 2^62: use fewer bits")
    kind = np.float64 if bound < EXACT_FLOAT else np.int64
    exact: Ints = np.matmul(left.astype(kind), right.astype(kind)).astype(np.int64)
    return exact


def scaled(array: Ints, coefficient: int) -> Ints:
    """coefficient * array, refused where it could wrap."""
    if magnitude(array) * abs(coefficient) >= EXACT_INT:
        raise OutOfRange(f"{magnitude(array)} * {coefficient} does not fit 62 bits: use fewer bits")
    return array.astype(np.int64) * np.int64(coefficient)


def shifted(array: Ints, shift: int) -> Ints:
    """round(array / 2^shift), halves up."""
    if shift == 0:
        return array
    return (array.astype(np.int64) + np.int64(1 << (shift - 1))) >> np.int64(shift)
