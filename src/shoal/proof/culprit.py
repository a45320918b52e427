"""Where an identity does not hold, for the person whose witness is wrong: axis by axis, without looking at every index.

With all other axes of the space at a random point, the difference of both sides along one axis is zero where nothing
is wrong (but for a chance of about 2^-120). Its first entry that is not zero is the first fault's coordinate.
"""

from __future__ import annotations

import numpy as np

from shoal.proof import axes, field, twin
from shoal.proof.axes import Vectors
from shoal.proof.circuit import Expr, Identity
from shoal.proof.claims import Shapes
from shoal.proof.expressions import Values, evaluate
from shoal.proof.field import Ext


def first_fault(identity: Identity, shapes: Shapes, values: Values, vectors: Vectors) -> tuple[int, ...]:
    """The first index at which the identity does not hold. vectors: of all its axes, at a random point of its space."""
    here, found = dict(vectors), list[int]()
    for axis, length in enumerate(identity.space):
        wrong = _difference(identity, axis, shapes, values, here).any(axis=1)
        found.append(int(wrong.argmax()))
        here[axis] = np.zeros((length, 2), np.uint64)
        here[axis][found[-1], 0] = 1
    return tuple(found)


def _difference(identity: Identity, axis: int, shapes: Shapes, values: Values, vectors: Vectors) -> Ext:
    """Products minus output along one axis of the space, (length, 2)."""
    box = shapes.box(*identity.space)
    rest = {a: vector for a, vector in vectors.items() if a < len(identity.space) and a != axis}
    out = evaluate(identity.out, (axis,), rest, box, values).wide()
    total = field.neg(_scaled(out, axes.axes_of(identity.out), rest))
    for a, b in identity.pairs:
        total = field.add(total, _products(identity, a, b, axis, shapes, values, vectors))
    return total


def _products(identity: Identity, a: Expr, b: Expr, axis: int, shapes: Shapes, values: Values, vectors: Vectors) -> Ext:
    shared = sorted((axes.axes_of(a) & axes.axes_of(b)) - {axis})
    box, keep = shapes.box(*identity.space, *identity.summed), (axis, *shared)
    bound = {other: vector for other, vector in vectors.items() if other not in keep}
    left, right = (evaluate(factor, keep, bound, box, values).wide() for factor in (a, b))
    products = field.ext_mul(left, right).reshape(box.lengths[axis], -1, 2)
    weighed = field.ext_mul(products, axes.outer([vectors[other] for other in shared]))
    return _scaled(twin.total(np.moveaxis(weighed, 1, 0)), axes.axes_of(a) | axes.axes_of(b), bound)


def _scaled(line: Ext, mentioned: frozenset[int], bound: Vectors) -> Ext:
    """Times the sums of the vectors of axes that are not mentioned."""
    for axis, vector in bound.items():
        if axis not in mentioned:
            line = field.ext_mul(line, field.ext([axes.total(vector)]))
    return line
