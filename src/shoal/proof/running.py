"""One product of the identity sumcheck while its variables are bound, on the prover's side."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.proof import axes, field, multilinear, products
from shoal.proof.field import Ext
from shoal.proof.rounds import quadratic, value_at_one
from shoal.proof.scalars import ONE, Element, add, horner, mul, sub


@dataclass(slots=True)
class Running:
    """a, b: (rows, rest, 2) over what is left of the variables, the current axis first.

    lengths, bits, points: of each axis left; a point is the coordinates of z, None where the axis is summed. claim:
    what is left to sum, without the weight and without the eq factors of bound variables (those are in `weight`).
    """

    a: Ext
    b: Ext
    lengths: list[int]
    bits: list[int]
    points: list[Ext | None]
    weight: Element
    claim: Element

    @property
    def num_variables(self) -> int:
        return sum(self.bits)

    @property
    def current(self) -> Element | None:
        """z of the current variable, None where it is summed."""
        return None if self.points[0] is None else field.element(self.points[0][0])

    def settle(self) -> None:
        """Drops axes whose variables are all bound."""
        while self.bits and self.bits[0] == 0:
            self.lengths.pop(0)
            self.bits.pop(0)
            self.points.pop(0)
        rows = self.lengths[0] if self.lengths else 1
        self.a, self.b = self.a.reshape(rows, -1, 2), self.b.reshape(rows, -1, 2)

    def eq_rest(self) -> Ext | None:
        """eq over the later axes that belong to the space; they are the last ones."""
        later = zip(self.points[1:], self.lengths[1:], strict=True)
        vectors = [multilinear.eq_prefix(point, length) for point, length in later if point is not None]
        return axes.outer(vectors) if vectors else None

    def sum_up(self) -> None:
        """Sets the claim to the sum as it is now."""
        point = self.points[0] if self.points else None
        rows = None if point is None else multilinear.eq_prefix(point, len(self.a))
        self.claim = products.weighted_sum(self.a, self.b, rows, self.eq_rest())

    def polynomial(self) -> list[Element]:
        """h of the current variable, without its eq factor: degree two."""
        half, point, z = 1 << (self.bits[0] - 1), self.points[0], self.current
        rows = None if point is None else multilinear.eq_prefix(point[1:], half)
        h0, top = products.round_sums(self.a, self.b, half, rows, self.eq_rest())
        h1 = sub(self.claim, h0) if z is None else value_at_one(self.claim, h0, z)
        return quadratic(h0, h1, top)

    def bind(self, h: list[Element], r: Element) -> None:
        """Fixes the current variable to r."""
        half, z = 1 << (self.bits[0] - 1), self.current
        if z is not None:
            self.weight = mul(self.weight, horner(eq_line(z), r))
        self.claim = horner(h, r)
        self.a, self.b = products.fold_rows(self.a, half, r), products.fold_rows(self.b, half, r)
        self.lengths[0], self.bits[0] = len(self.a), self.bits[0] - 1
        if self.points[0] is not None:
            self.points[0] = self.points[0][1:]
        self.settle()


def eq_line(z: Element) -> list[Element]:
    """(1 - z)(1 - X) + z X as coefficients."""
    return [sub(ONE, z), sub(add(z, z), ONE)]


def times_line(h: list[Element], line: list[Element]) -> list[Element]:
    """h * line: degree two times degree one."""
    low, high = [mul(c, line[0]) for c in h], [mul(c, line[1]) for c in h]
    return [low[0], add(low[1], high[0]), add(low[2], high[1]), high[2]]
