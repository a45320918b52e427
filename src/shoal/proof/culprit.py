"""Where an identity does not hold, for the person whose witness is wrong: axis by axis, without looking at every index.

With all other axes of the space at a random point, the difference of both sides along one axis is zero where nothing
is wrong (but for a chance of about 2^-120). Its first entry that is not zero is the first fault's coordinate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from shoal.proof import axes, field, twin
from shoal.proof.circuit import Expr
from shoal.proof.field import Ext
from shoal.proof.fixed import Fixed


def first_fault(fixed: Fixed) -> tuple[int, ...]:
    """The first index at which the identity does not hold."""
    found = list[int]()
    for axis, length in enumerate(fixed.identity.space):
        found.append(int(_difference(fixed, axis).any(axis=1).argmax()))
        here = np.zeros((length, 2), np.uint64)
        here[found[-1], 0] = 1
        fixed = replace(fixed, vectors={**fixed.vectors, axis: here})
    return tuple(found)


def _difference(fixed: Fixed, axis: int) -> Ext:
    """Products minus output along one axis of the space, (length, 2)."""
    identity, space = fixed.identity, range(len(fixed.identity.space))
    out = fixed.over(identity.out, (axis,))
    total = field.neg(_scaled(out, fixed, set(space) - axes.axes_of(identity.out) - {axis}))
    for a, b in identity.pairs:
        total = field.add(total, _products(fixed, a, b, axis))
    return total


def _products(fixed: Fixed, a: Expr, b: Expr, axis: int) -> Ext:
    reads = axes.axes_of(a), axes.axes_of(b)
    shared = sorted((reads[0] & reads[1]) - {axis})
    left, right = (fixed.over(factor, (axis, *shared)) for factor in (a, b))
    products = field.ext_mul(left, right).reshape(fixed.lengths[axis], -1, 2)
    weighed = field.ext_mul(products, axes.outer([fixed.vectors[other] for other in shared]))
    sums = twin.total(np.moveaxis(weighed, 1, 0))
    return _scaled(sums, fixed, set(range(len(fixed.lengths))) - reads[0] - reads[1] - {axis})


def _scaled(line: Ext, fixed: Fixed, unmentioned: Iterable[int]) -> Ext:
    """Times the sums of the vectors of these axes."""
    for axis in unmentioned:
        line = field.ext_mul(line, field.ext([axes.total(fixed.vectors[axis])]))
    return line
