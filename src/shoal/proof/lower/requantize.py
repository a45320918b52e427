"""Rounding, rectifying and pooling in one step.

With y = max over the window of q_k (and 0 if rectified), q_k = round(x_k / 2^s), h_k = y - q_k >= 0 and the remainder
0 <= l_k < 2^s:   x_k = 2^s (y - h_k) - 2^(s-1) + l_k,   and some h_k (or y, if rectified) is zero.
Without window and rectifier h is zero and has no columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.proof.circuit import Shape
from shoal.proof.graph.builder import identity
from shoal.proof.graph.exact import read, shifted
from shoal.proof.graph.ir import Indices, Ints, Node, Requantize
from shoal.proof.lower.contractions import operands_of
from shoal.proof.lower.emitter import Emitter, Known, Ranged
from shoal.proof.lower.existence import Candidates, some_is_zero
from shoal.proof.lower.form import Factors, Form, View, add, flat, plain_factors


@dataclass(frozen=True, slots=True)
class Step:
    """A requantization as the circuit sees it: the output's axes, then the window's."""

    node: Node
    how: Requantize
    shape: Shape
    indices: Indices
    form: Form
    factors: Factors

    @property
    def lengths(self) -> Shape:
        return (*self.shape, *self.how.window)

    @property
    def own(self) -> Factors:
        return self.factors[: len(self.shape)]

    def windows(self, known: Known) -> Ints:
        """x_k of every output entry."""
        spread = read(known.tensors[self.node.inputs[0]], self.indices, self.lengths, known.tensors)
        return np.broadcast_to(spread, self.lengths)


def lower_requantize(emitter: Emitter, node: Node, how: Requantize) -> View:
    shape = emitter.graph.tensors[node.output].shape
    choosing = bool(how.window) or (how.relu and how.low < 0)
    if how.shift == 0 and not choosing and not how.indices:
        return emitter.view(node.inputs[0])
    indices = how.indices or identity(len(shape))
    (form,), factors = operands_of(emitter, [(node.inputs[0], indices)], (*shape, *how.window))
    step = Step(node, how, shape, indices, form, factors)
    low, high = (max(how.low, 0), max(how.high, 0)) if how.relu else (how.low, how.high)
    y = emitter.ranged(node.output, shape, low, high, lambda known: known.tensors[node.output])
    gap = _gap(emitter, step, high - how.low) if choosing else None
    _equation(emitter, step, y, gap)
    if gap is not None:
        floor = y if how.relu else None
        some_is_zero(emitter, node.output, Candidates(shape, how.window, step.own, gap, floor))
    plain = plain_factors(shape)
    return View(plain, Form(flat(plain), y.expr(plain)))


def _gap(emitter: Emitter, step: Step, most: int) -> Ranged:
    def gaps(known: Known) -> Ints:
        result = known.tensors[step.node.output].reshape(step.shape + (1,) * len(step.how.window))
        return result - shifted(step.windows(known), step.how.shift)

    return emitter.ranged(f"{step.node.output}.gap", step.lengths, 0, most, gaps)


def _equation(emitter: Emitter, step: Step, y: Ranged, gap: Ranged | None) -> None:
    shift = step.how.shift
    terms = [(1 << shift, y.expr(step.own))]
    if gap is not None:
        terms.append((-1 << shift, gap.expr(step.factors)))
    if shift:
        terms.append((1, _rest(emitter, step).expr(step.factors)))
    emitter.equal(f"{step.node.output} rounds", step.form, add(terms, -half(shift)))


def half(shift: int) -> int:
    return 1 << (shift - 1) if shift else 0


def remainder(x: Ints, shift: int) -> Ints:
    """x + 2^(shift - 1) - 2^shift round(x / 2^shift): 0 .. 2^shift - 1."""
    return x + half(shift) - (shifted(x, shift) << shift)


def _rest(emitter: Emitter, step: Step) -> Ranged:
    return emitter.digits(
        f"{step.node.output}.rest",
        step.lengths,
        step.how.shift,
        lambda known: remainder(step.windows(known), step.how.shift),
    )
