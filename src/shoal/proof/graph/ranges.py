"""Ranges of results from ranges of operands: what no input can leave."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from shoal.proof.circuit import Index, Shape
from shoal.proof.graph.exact import read, scaled
from shoal.proof.graph.ir import Indices, Ints


@dataclass(frozen=True, slots=True)
class Range:
    """low .. high, both included."""

    low: int
    high: int

    def with_zero(self) -> Range:
        return Range(min(self.low, 0), max(self.high, 0))

    def times(self, factor: int) -> Range:
        ends = (self.low * factor, self.high * factor)
        return Range(min(ends), max(ends))

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


def of_array(array: Ints) -> Range:
    return Range(int(array.min()), int(array.max())) if array.size else Range(0, 0)


def stays_inside(index: Index, length: int, lengths: Shape) -> bool:
    """Whether the index picks an entry of an axis of `length` for every tuple of the space."""
    if index.summed or index.gather is not None:
        return True
    ends = [stride * (lengths[axis] - 1) for axis, stride in index.terms]
    low, high = (index.offset + sum(pick(end, 0) for end in ends) for pick in (min, max))
    return low >= 0 and high < length


def of_read(operand: Range, shape: Shape, indices: Indices, lengths: Shape) -> Range:
    """Range of one read: zero may come in from outside, summed axes add up."""
    summed = prod(length for index, length in zip(indices, shape, strict=True) if index.summed)
    inside = all(stays_inside(index, length, lengths) for index, length in zip(indices, shape, strict=True))
    return (operand if inside else operand.with_zero()).times(summed)


def of_products(left: Range, right: Range, terms: int) -> Range:
    """Range of a sum of `terms` products, zeros from outside included."""
    ends = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
    return Range(min(*ends, 0) * terms, max(*ends, 0) * terms)


def of_weighted_sums(values: Range, weights: Ints, indices: Indices, lengths: Shape, rank: int) -> Range:
    """Range of sum over the axes from `rank` on of value * weights[indices], with the weights' own numbers."""
    values = values.with_zero()
    spread = read(weights, indices, lengths, {})
    repeats = prod(length for axis, length in enumerate(lengths) if axis >= rank and spread.shape[axis] == 1)
    summed = tuple(range(rank, len(lengths)))
    rising = np.maximum(spread, 0).sum(axis=summed, dtype=np.int64) * np.int64(repeats)
    falling = np.minimum(spread, 0).sum(axis=summed, dtype=np.int64) * np.int64(repeats)
    high = scaled(rising, values.high) + scaled(falling, values.low)
    low = scaled(rising, values.low) + scaled(falling, values.high)
    return Range(int(low.min()), int(high.max()))
