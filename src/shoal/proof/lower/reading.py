"""Forms read through index maps: which factors the axes of a node need, and what an operand is over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from shoal.proof.circuit import Expr, Index, Read, Shape
from shoal.proof.graph.exact import positions
from shoal.proof.graph.ir import Indices
from shoal.proof.graph.ranges import stays_inside
from shoal.proof.lower.form import (
    Factors,
    Form,
    View,
    axes_of_factors,
    flat,
    plain_factors,
    refine,
    substitute,
    vanishes_outside,
)


@dataclass(frozen=True, slots=True)
class Operand:
    view: View
    indices: Indices


def needs_copy(operand: Operand, lengths: Shape, shapes: Mapping[str, Shape]) -> bool:
    """Whether the operand's form cannot be read like this: a flattened axis in steps, or zeros where it has none."""
    first = 0
    for factors, index in zip(operand.view.factors, operand.indices, strict=True):
        inside = stays_inside(index, prod(factors), lengths)
        if len(factors) > 1 and not _same_axis(index, prod(factors), lengths):
            return True
        if not inside and not (factors and _vanishes(operand.view.form, first, factors[0], shapes)):
            return True
        if index.gather is not None and not _plain(operand.view.form):
            return True
        first += len(factors)
    return False


def _same_axis(index: Index, length: int, lengths: Shape) -> bool:
    return len(index.terms) == 1 and index == Index(((index.terms[0][0], 1),)) and lengths[index.terms[0][0]] == length


def _vanishes(form: Form, axis: int, length: int, shapes: Mapping[str, Shape]) -> bool:
    def zero(expr: Expr) -> bool:
        return vanishes_outside(expr, axis, length, shapes)

    return zero(form.affine) and all(zero(a) or zero(b) for a, b in form.pairs)


def _plain(form: Form) -> bool:
    """Whether the form is one source as it stands."""
    return not form.pairs and len(form.affine.reads) == 1 and form.affine.constant == 0


def arrange(operands: Sequence[Operand], lengths: Shape) -> Factors | None:
    """Factors for each axis of the node that refine those of all operands; None if two operands' do not agree."""
    found = list(plain_factors(lengths))
    for operand in operands:
        for factors, index in zip(operand.view.factors, operand.indices, strict=True):
            if len(factors) > 1:
                axis = index.terms[0][0]
                merged = refine(found[axis], factors)
                if merged is None:
                    return None
                found[axis] = merged
    return tuple(found)


def through(operand: Operand, factors: Factors) -> Form:
    """The operand's form over the space of all `factors`. `needs_copy` must have said no."""
    axes = axes_of_factors(factors)
    maps: list[Index] = []
    for own, index in zip(operand.view.factors, operand.indices, strict=True):
        if len(own) == 1:
            maps.append(_composed(index, axes))
        elif own:
            maps += _groups(own, axes[index.terms[0][0]])
    return substitute(operand.view.form, maps, flat(factors))


def _composed(index: Index, axes: list[list[tuple[int, int]]]) -> Index:
    terms = tuple((number, stride * inner) for axis, stride in index.terms for number, inner in axes[axis])
    return Index(terms, index.offset, False, index.gather)


def _groups(own: Shape, finer: list[tuple[int, int]]) -> list[Index]:
    """One map for each factor, made of the finer factors it consists of."""
    maps = []
    for place, length in enumerate(own):
        stride = prod(own[place + 1 :])
        terms = tuple((number, inner // stride) for number, inner in finer if stride <= inner < stride * length)
        maps.append(Index(terms))
    return maps


def summed_over(view: View, axis: int, shapes: Mapping[str, Shape]) -> View | None:
    """The view's entries added up along an axis, which becomes 1 long; None if the sources cannot say it."""
    first = sum(len(factors) for factors in view.factors[:axis])
    gone = range(first, first + len(view.factors[axis]))
    reads = [_summed_read(read, gone, view.form.space, shapes[read.source]) for read in view.form.affine.reads]
    kept = [read for read in reads if read is not None]
    if view.form.pairs or len(kept) < len(reads):
        return None
    constant = view.form.affine.constant * prod(view.factors[axis])
    factors = (*view.factors[:axis], (), *view.factors[axis + 1 :])
    numbers = [n for n in range(len(view.form.space)) if n not in gone]
    maps = [Index(((numbers.index(n), 1),)) if n in numbers else Index() for n in range(len(view.form.space))]
    return View(factors, substitute(Form(view.form.space, Expr(tuple(kept), constant)), maps, flat(factors)))


def _summed_read(read: Read, gone: range, space: Shape, shape: Shape) -> Read | None:
    used: set[int] = set()
    indices = []
    for index, length in zip(read.indices, shape, strict=True):
        axes = {axis for axis, _ in index.terms} & set(gone)
        if axes and not _covers(index, length, space, gone):
            return None
        used |= axes
        indices.append(Index(summed=True) if axes else index)
    repeats = prod(space[axis] for axis in gone if axis not in used)
    return Read(read.source, tuple(indices), read.coefficient * repeats)


def _covers(index: Index, length: int, space: Shape, gone: range) -> bool:
    """Whether the index visits every entry of the axis once while the axes `gone` run, and nothing else moves it."""
    if index.gather is not None or any(axis not in gone for axis, _ in index.terms):
        return False
    return bool(np.array_equal(np.sort(positions(index, space)), np.arange(length)))
