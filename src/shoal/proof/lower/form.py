"""What a tensor of the graph is in terms of a circuit's sources: affine in them, or a sum of products of two reads.

A tensor is seen through `View`: each of its axes is a product of factors (row-major), so that a flattened (16, 4, 4) is
read as three axes and needs no copy. A form's expressions speak about the factors' axes, numbered through, and then
about the summed ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from operator import mul

from shoal.proof.circuit import Expr, Index, Read, Shape

Factors = tuple[Shape, ...]
"""For each axis of a tensor the factors of its length, slowest first; none for length 1."""


@dataclass(frozen=True, slots=True)
class Form:
    """affine + the sum over `summed` of a * b over `pairs`, for every index tuple of `space`."""

    space: Shape
    affine: Expr
    summed: Shape = ()
    pairs: tuple[tuple[Expr, Expr], ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    factors: Factors
    form: Form

    @property
    def shape(self) -> Shape:
        return tuple(prod(axis) for axis in self.factors)


def flat(factors: Factors) -> Shape:
    return tuple(length for axis in factors for length in axis)


def plain_factors(shape: Shape) -> Factors:
    return tuple((length,) if length > 1 else () for length in shape)


def axes_of_factors(factors: Factors) -> list[list[tuple[int, int]]]:
    """For each axis the (number, stride) of its factors: the axis' index is the sum of stride * i[number]."""
    result, first = [], 0
    for axis in factors:
        strides = [prod(axis[place + 1 :]) for place in range(len(axis))]
        result.append([(first + place, stride) for place, stride in enumerate(strides)])
        first += len(axis)
    return result


def read_source(name: str, factors: Factors, coefficient: int = 1) -> Read:
    """A source with one axis for each item of `factors`, read over the space of all factors."""
    return Read(name, tuple(Index(tuple(terms)) for terms in axes_of_factors(factors)), coefficient)


def source_view(name: str, shape: Shape) -> View:
    factors = plain_factors(shape)
    return View(factors, Form(flat(factors), Expr((read_source(name, factors),))))


def refine(first: Shape, second: Shape) -> Shape | None:
    """The coarsest factors that refine both lists of factors of one length; None if there are none."""
    cuts = sorted({*_suffixes(first), *_suffixes(second)})
    if any(high % low for low, high in pairwise(cuts)):
        return None
    return tuple(high // low for low, high in reversed(list(pairwise(cuts))))


def _suffixes(factors: Shape) -> list[int]:
    return [1, *accumulate(reversed(factors), mul)]


def regroup(factors: Shape, shape: Shape) -> Factors | None:
    """Cuts a flat list of factors into the axes of `shape`, splitting factors where needed; None if they will not."""
    merged = refine(factors, tuple(length for length in shape if length > 1))
    if merged is None:
        return None
    result, rest = [], list(merged)
    for length in shape:
        axis: list[int] = []
        while prod(axis) < length:
            axis.append(rest.pop(0))
        result.append(tuple(axis))
    return tuple(result)


def substitute(form: Form, maps: Sequence[Index], space: Shape) -> Form:
    """The form with its space's axes replaced by affine indices of another space."""
    offset = len(space) - len(form.space)
    renumbered = [
        Index(((number + offset, 1),)) for number in range(len(form.space), len(form.space) + len(form.summed))
    ]
    whole = [*maps, *renumbered]
    pairs = tuple((_expr(a, whole), _expr(b, whole)) for a, b in form.pairs)
    return Form(space, _expr(form.affine, whole), form.summed, pairs)


def _expr(expr: Expr, maps: Sequence[Index]) -> Expr:
    reads = (Read(r.source, tuple(_index(index, maps) for index in r.indices), r.coefficient) for r in expr.reads)
    return Expr(tuple(reads), expr.constant)


def _index(index: Index, maps: Sequence[Index]) -> Index:
    if index.summed:
        return index
    if any(maps[axis].gather is not None for axis, _ in index.terms):
        return maps[index.terms[0][0]]  # `needs_copy` lets only whole axes of plain sources be gathered
    offset, strides = index.offset, dict[int, int]()
    for axis, stride in index.terms:
        offset += stride * maps[axis].offset
        for number, inner in maps[axis].terms:
            strides[number] = strides.get(number, 0) + stride * inner
    return Index(tuple(strides.items()), offset, False, index.gather)


def vanishes_outside(expr: Expr, axis: int, length: int, shapes: Mapping[str, Shape]) -> bool:
    """Whether the expression is zero wherever the axis leaves 0 .. length - 1: each read then leaves its source."""
    return expr.constant == 0 and all(
        any(
            index == Index(((axis, 1),)) and shapes[read.source][place] == length
            for place, index in enumerate(read.indices)
        )
        for read in expr.reads
    )


def add(terms: Sequence[tuple[int, Expr]], constant: int = 0) -> Expr:
    """constant + the sum of coefficient * expression; equal reads are put together."""
    reads: dict[tuple[str, tuple[Index, ...]], int] = {}
    for coefficient, expr in terms:
        constant += coefficient * expr.constant
        for read in expr.reads:
            key = (read.source, read.indices)
            reads[key] = reads.get(key, 0) + coefficient * read.coefficient
    kept = tuple(Read(source, indices, c) for (source, indices), c in reads.items() if c)
    return Expr(kept, constant)


def scale(expr: Expr, factor: int) -> Expr:
    return add([(factor, expr)])
