"""Axes of sources seen from a constraint's space: what an `Index` picks, and what becomes of vectors along axes.

Fixing a space axis at a random point gives it a vector of weights. Carried over through the `Index` of a read, such
vectors become one vector of weights along each axis of the source; axes that are still to be summed stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.proof import field
from shoal.proof.circuit import Expr, Index, IntArray, Read
from shoal.proof.field import Ext
from shoal.proof.scalars import ONE, Element, mul

Positions = npt.NDArray[np.int64]
Vectors = Mapping[int, Ext]
"""Space axis -> its weights, (length of the axis, 2)."""


@dataclass(frozen=True, slots=True)
class Box:
    """The index tuples a constraint ranges over, and the public sources by which axes may be gathered."""

    lengths: tuple[int, ...]
    gathers: Mapping[str, IntArray]


def axes_of_read(read: Read) -> frozenset[int]:
    return frozenset(axis for index in read.indices if not index.summed for axis, _ in index.terms)


def axes_of(expr: Expr) -> frozenset[int]:
    """Axes an expression mentions."""
    return frozenset[int]().union(*(axes_of_read(read) for read in expr.reads))


def positions(index: Index, axes: Sequence[int], box: Box) -> Positions:
    """What `offset + sum of stride * i` is over the box of `axes`, before any gather: shape (product of lengths,)."""
    strides = dict(index.terms)
    found = np.zeros(1, np.int64)
    for axis in axes:
        found = (found[:, None] + strides[axis] * np.arange(box.lengths[axis])).reshape(-1)
    return found + index.offset


def picked(index: Index, raw: Positions, length: int, box: Box) -> Positions:
    """Indices on a source axis of `length`, -1 for what lies outside."""
    if index.gather is not None:
        table = box.gathers[index.gather]
        inside = (raw >= 0) & (raw < len(table))
        raw = np.where(inside, table[np.where(inside, raw, 0)], -1)
    return np.where((raw >= 0) & (raw < length), raw, -1)


def kept_axes(index: Index, bound: Vectors) -> tuple[int, ...]:
    """Axes of the space which the index mentions and which have no vector, ascending."""
    return () if index.summed else tuple(sorted(axis for axis, _ in index.terms if axis not in bound))


def weights(index: Index, bound: Vectors, length: int, box: Box) -> Ext:
    """Weight of every entry of a source axis: (length, 2), or (length, K, 2) with K positions of the kept axes."""
    if index.summed:
        return field.lift(np.ones(length, np.uint64))
    if vector := _same_axis(index, bound, length):
        return bound[vector[0]]
    kept, axes = kept_axes(index, bound), tuple(axis for axis, _ in index.terms if axis in bound)
    factors = outer([bound[axis] for axis in axes])
    here = positions(Index(index.terms), kept, box)
    raw = positions(index, axes, box)[:, None] + here[None, :]
    where = picked(index, raw, length, box)
    flat = np.where(where < 0, -1, where * len(here) + np.arange(len(here)))
    spread = np.broadcast_to(factors[:, None], (*flat.shape, 2)).reshape(-1, 2)
    result = scatter(flat.reshape(-1), spread, length * len(here))
    return result.reshape(length, len(here), 2) if kept else result


def outer(vectors: Sequence[Ext]) -> Ext:
    """Products of one entry of each: (product of lengths, 2), the last vector's index moving fastest."""
    result = field.ext([ONE])
    for vector in vectors:
        result = field.ext_outer(result, vector) if len(result) > 1 else _scaled(result, vector)
    return result


def scatter(where: Positions, values: Ext, length: int) -> Ext:
    """Sums `values` into `length` cells; negative places are dropped."""
    inside = where >= 0
    where, values = where[inside], values[inside]
    halves = np.zeros((length, 4), np.uint64)
    parts = np.concatenate([values & np.uint64(0xFFFF_FFFF), values >> np.uint64(32)], axis=1)
    np.add.at(halves, where, parts)  # fewer than 2^32 terms: no sum of halves wraps
    reduced = field.from_ints(halves)
    return field.add(reduced[:, :2], field.mul(reduced[:, 2:], np.array(1 << 32, np.uint64)))


def total(vector: Ext) -> Element:
    """The sum of a vector's entries."""
    return field.dot_base(np.ones(len(vector), np.uint64), vector)


def unmentioned(mentioned: frozenset[int], num_axes: int, vectors: Vectors) -> Element:
    """Product of the sums of the vectors of axes that are not mentioned: what a factor that is constant there gets."""
    factor = ONE
    for axis in range(num_axes):
        if axis not in mentioned:
            factor = mul(factor, total(vectors[axis]))
    return factor


def _same_axis(index: Index, bound: Vectors, length: int) -> tuple[int] | None:
    """The one space axis that maps to this axis entry by entry, in a tuple (axis 0 is an axis too)."""
    if index.gather is None and index.offset == 0 and len(index.terms) == 1 and index.terms[0][1] == 1:
        axis = index.terms[0][0]
        if axis in bound and len(bound[axis]) == length:
            return (axis,)
    return None


def _scaled(one: Ext, vector: Ext) -> Ext:
    return vector if field.element(one[0]) == ONE else field.ext_mul(vector, one)
