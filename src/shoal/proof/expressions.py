"""What an expression is over the axes that are kept, after every other axis got a vector of weights.

The prover's half of the linear algebra; `claims.py` says the same of a single point, for the verifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from shoal.proof import axes, field
from shoal.proof.axes import Box, Vectors
from shoal.proof.circuit import Expr, Index, Read
from shoal.proof.contract import contract
from shoal.proof.scalars import ONE, Element, P, mul

Values = Mapping[str, npt.NDArray[np.generic]]
"""Source name -> its integers, of any signed type."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Field elements over some axes of a space. data has one more axis if is_ext."""

    data: npt.NDArray[np.uint64]
    is_ext: bool

    def wide(self) -> npt.NDArray[np.uint64]:
        """As extension elements."""
        return self.data if self.is_ext else field.lift(self.data)


def evaluate(expr: Expr, keep: Sequence[int], bound: Vectors, box: Box, values: Values) -> Grid:
    """The expression over `keep`, in that order, summed over its other axes with their vectors in `bound`.

    `keep` may hold axes it does not mention; vectors of axes it does not mention are not its business.
    """
    mentioned = axes.axes_of(expr)
    shape = tuple(box.lengths[axis] for axis in keep)
    parts = [_read(read, keep, {a: bound[a] for a in mentioned if a in bound}, box, values) for read in expr.reads]
    if expr.constant or not parts:
        factor = _missing(frozenset(), {a: bound[a] for a in mentioned if a in bound})
        parts.append(_scale(np.ones((1,) * len(keep), np.uint64), False, factor, expr.constant))
    total = parts[0]
    for part in parts[1:]:
        total = _add(total, part)
    return Grid(np.broadcast_to(total.data, (*shape, 2) if total.is_ext else shape), total.is_ext)


def _read(read: Read, keep: Sequence[int], bound: Vectors, box: Box, values: Values) -> Grid:
    """coefficient * source over `keep`, with axes of length one where the read mentions none."""
    data, is_ext, order = values[read.source], False, list[int]()
    dims = list(data.shape)
    steps = {a: _step(index, bound, data.shape[a], box) for a, index in enumerate(read.indices)}
    for axis in sorted(steps, key=lambda a: _growth(steps[a], data.shape[a])):
        data, is_ext = _apply(data, is_ext, dims, axis, steps[axis])
    for index in read.indices:
        order += axes.kept_axes(index, bound)
    tail, places = (2,) if is_ext else (), [order.index(axis) for axis in keep if axis in order]
    data = data.reshape((*(box.lengths[axis] for axis in order), *tail))
    data = data.transpose((*places, *((len(order),) if is_ext else ())))
    data = data.reshape((*(box.lengths[axis] if axis in order else 1 for axis in keep), *tail))
    return _scale(data, is_ext, _missing(axes.axes_of_read(read), bound), read.coefficient)


@dataclass(frozen=True, slots=True)
class _Step:
    """What is done along one axis of a source: entries are taken (-1: zero), or summed with weights."""

    take: axes.Positions | None = None
    weights: npt.NDArray[np.uint64] | None = None


def _step(index: Index, bound: Vectors, length: int, box: Box) -> _Step:
    if not index.summed and not any(axis in bound for axis, _ in index.terms):
        raw = axes.positions(index, axes.kept_axes(index, bound), box)
        return _Step(take=axes.picked(index, raw, length, box))
    weights = axes.weights(index, bound, length, box)
    return _Step(weights=weights if weights.ndim == 3 else weights[:, None])


def _growth(step: _Step, length: int) -> float:
    """Steps that shrink the tensor most go first; taking is cheaper than summing."""
    if step.take is not None:
        return len(step.take) / length - 1e-6
    return 0.0 if step.weights is None else step.weights.shape[1] / length


def _apply(
    data: npt.NDArray[np.generic], is_ext: bool, dims: list[int], axis: int, step: _Step
) -> tuple[npt.NDArray[np.generic], bool]:
    tail = (2,) if is_ext else ()
    cube = data.reshape(prod(dims[:axis]), dims[axis], prod(dims[axis + 1 :]), *tail)
    if step.weights is not None:
        dims[axis] = step.weights.shape[1]
        return contract(cube, step.weights, is_ext), True
    where = step.take
    if where is None or (len(where) == dims[axis] and (where == np.arange(len(where))).all()):
        return data, is_ext
    dims[axis] = len(where)
    taken = cube[:, np.maximum(where, 0)]
    taken[:, where < 0] = 0
    return taken, is_ext


def _missing(mentioned: frozenset[int], bound: Vectors) -> Element:
    """Product of the sums of the vectors of axes which are not mentioned."""
    factor = ONE
    for axis, vector in bound.items():
        if axis not in mentioned:
            factor = mul(factor, axes.total(vector))
    return factor


def _scale(data: npt.NDArray[np.generic], is_ext: bool, factor: Element, coefficient: int) -> Grid:
    factor = mul(factor, (coefficient % P, 0))
    numbers = data.astype(np.uint64, copy=False) if is_ext else field.from_ints(data)  # type: ignore[arg-type]
    if factor == ONE:
        return Grid(numbers, is_ext)
    if factor[1] == 0:
        return Grid(field.mul(numbers, np.array(factor[0], np.uint64)), is_ext)
    return Grid(field.ext_mul(numbers if is_ext else field.lift(numbers), field.ext([factor])[0]), True)


def _add(a: Grid, b: Grid) -> Grid:
    if a.is_ext == b.is_ext:
        return Grid(field.add(a.data, b.data), a.is_ext)
    return Grid(field.add(a.wide(), b.wide()), True)
