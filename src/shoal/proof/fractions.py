"""Layers of a sum of fractions, and the sums of its sumcheck rounds; the plain twin of what csrc/iop.c does.

A layer holds numerators p and denominators q; node i of the layer above adds the fractions i and half + i:
p = p0 q1 + p1 q0, q = q0 q1. Only the leaves may be fewer than a power of two: those that are missing are 0 / 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.proof import field, multilinear, native
from shoal.proof.field import Base, Ext
from shoal.proof.products import short_fold
from shoal.proof.scalars import ONE, ZERO, Element, mul, sub

LOW_BITS = 10
"""Variables of the table of eq that the inner loop walks; the others' table is walked by the outer one."""


@dataclass(frozen=True, slots=True)
class Layer:
    """p (n,) base elements at the leaves, (n, 2) above; q (n, 2)."""

    p: Base | Ext
    q: Ext


def layer_above(layer: Layer, half: int) -> Layer:
    """The sums of pairs, `half` of them; needs more than `half` entries below."""
    count = len(layer.q) - half
    call = native.function("proof_fraction_layer", "ippqqpp")
    if call is not None:
        p, q = np.empty((half, 2), np.uint64), np.empty((half, 2), np.uint64)
        below = np.ascontiguousarray(layer.p), np.ascontiguousarray(layer.q)
        pointers = [native.pointer(array) for array in (*below, p, q)]
        call(layer.p.ndim == 1, *pointers[:2], half, count, *pointers[2:])
        return Layer(p, q)
    p0, p1 = _wide(layer.p[:half]), _wide(layer.p[half:])
    q0, q1 = layer.q[:half], layer.q[half:]
    p = field.add(field.ext_mul(p0[:count], q1), field.ext_mul(p1, q0[:count]))
    return Layer(np.concatenate([p, p0[count:]]), np.concatenate([field.ext_mul(q0[:count], q1), q0[count:]]))


@dataclass(slots=True)
class Halves:
    """What one layer's sumcheck runs over: the sum of eq * (a b + c d), a = p0, b = q1, c = p1 + weight q1, d = q0.

    a and d are full; b and c may be short, then they go on as 1 and `weight`.
    """

    a: Base | Ext
    b: Ext
    c: Ext
    d: Ext
    weight: Element

    def sums(self, half: int, point: Ext) -> tuple[Element, Element]:
        """h(0) and the leading coefficient of h for the current variable; `point`: z of the later ones."""
        call = native.function("proof_fraction_sums", "ippppqqppqpqp")
        if call is None:
            return self._sums_plain(half, point)
        return self._sums_native(half, point)

    def fold(self, half: int, r: Element) -> None:
        """Binds the current variable to r. Reuses the tables' memory."""
        self.a, self.d = short_fold(self.a, half, r, ZERO), short_fold(self.d, half, r, ONE)
        self.b, self.c = short_fold(self.b, half, r, ONE), short_fold(self.c, half, r, self.weight)

    def last(self) -> tuple[Element, Element, Element, Element]:
        """p0, p1, q0, q1 when every variable is bound."""
        a, d = field.element(_wide(self.a)[0]), field.element(self.d[0])
        b = field.element(self.b[0]) if len(self.b) else ONE
        c = field.element(self.c[0]) if len(self.c) else self.weight
        return a, sub(c, mul(self.weight, b)), d, b

    def _sums_native(self, half: int, point: Ext) -> tuple[Element, Element]:
        call = native.function("proof_fraction_sums", "ippppqqppqpqp")
        cut = max(len(point) - LOW_BITS, 0)
        high, low = multilinear.eq_table(point[:cut]), multilinear.eq_table(point[cut:])
        weight, out = field.ext([self.weight]), np.empty((2, 2), np.uint64)
        tables = [native.pointer(np.ascontiguousarray(t)) for t in (self.a, self.b, self.c, self.d)]
        eq = native.pointer(high), len(high), native.pointer(low), len(low)
        if call is not None:
            call(self.a.ndim == 1, *tables, half, len(self.b), native.pointer(weight), *eq, native.pointer(out))
        return field.element(out[0]), field.element(out[1])

    def _sums_plain(self, half: int, point: Ext) -> tuple[Element, Element]:
        eq = multilinear.eq_table(point)
        (a, a1), (d, d1) = _sides(_wide(self.a), half, ZERO), _sides(self.d, half, ONE)
        (b, b1), (c, c1) = _sides(self.b, half, ONE), _sides(self.c, half, self.weight)
        low = field.add(field.ext_mul(a, b), field.ext_mul(c, d))
        slopes = field.ext_mul(field.sub(a1, a), field.sub(b1, b)), field.ext_mul(field.sub(c1, c), field.sub(d1, d))
        return field.dot_ext(low, eq), field.dot_ext(field.add(*slopes), eq)


def halves(layer: Layer, half: int, weight: Element) -> Halves:
    """A layer cut for its sumcheck. The layer's memory is used up by it."""
    q1 = layer.q[half:]
    c = field.add(_wide(layer.p[half:]), field.ext_mul(q1, field.ext([weight])))
    return Halves(layer.p[:half], q1, c, layer.q[:half], weight)


def _sides(values: Ext, half: int, missing: Element) -> tuple[Ext, Ext]:
    gap = 2 * half - len(values)
    full = np.concatenate([values, np.broadcast_to(field.ext([missing]), (gap, 2))]) if gap else values
    return full[:half], full[half:]


def _wide(values: Base | Ext) -> Ext:
    return field.lift(values) if values.ndim == 1 else values
