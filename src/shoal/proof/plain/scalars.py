"""A quadratic extension of a prime field, in Python integers, for any prime. Elements are pairs (a, b): a + b x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Element = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Field:
    """GF(p)[x] / (x^2 - w); w is not a square modulo p."""

    p: int
    w: int

    def number(self, value: int) -> Element:
        return (value % self.p, 0)

    def add(self, *terms: Element) -> Element:
        return (sum(t[0] for t in terms) % self.p, sum(t[1] for t in terms) % self.p)

    def minus(self, u: Element, v: Element) -> Element:
        return ((u[0] - v[0]) % self.p, (u[1] - v[1]) % self.p)

    def times(self, *factors: Element) -> Element:
        a, b = 1, 0
        for c, d in factors:
            a, b = (a * c + self.w * b * d) % self.p, (a * d + b * c) % self.p
        return (a, b)

    def power(self, u: Element, exponent: int) -> Element:
        result = (1, 0)
        for bit in bin(exponent)[2:]:
            result = self.times(result, result)
            result = self.times(result, u) if bit == "1" else result
        return result

    def over(self, u: Element, v: Element) -> Element:
        """u / v, by Fermat's little theorem in the extension. Raises ZeroDivisionError."""
        if v == (0, 0):
            raise ZeroDivisionError("expected a divisor that is not zero")
        return self.times(u, self.power(v, self.p * self.p - 2))

    def polynomial(self, coefficients: Sequence[Element], at: Element) -> Element:
        terms = (self.times(c, self.power(at, i)) for i, c in enumerate(coefficients))
        return self.add(*terms)

    def eq(self, point: Sequence[Element], index: int) -> Element:
        """Product over the bits of `index`, the most significant first, of z or 1 - z."""
        result = (1, 0)
        for i, z in enumerate(point):
            bit = index >> (len(point) - 1 - i) & 1
            result = self.times(result, z if bit else self.minus((1, 0), z))
        return result

    def eq_points(self, u: Sequence[Element], v: Sequence[Element]) -> Element:
        """The extension of equality of two bit strings, at two points."""
        result = (1, 0)
        for x, y in zip(u, v, strict=True):
            neither = self.times(self.minus((1, 0), x), self.minus((1, 0), y))
            result = self.times(result, self.add(self.times(x, y), neither))
        return result


GOLDILOCKS = Field(2**64 - 2**32 + 1, 7)
