"""Messages of sumcheck rounds, the same arithmetic for both sides.

Two kinds: a polynomial by its coefficients but the linear one, which the claim implies (g(0) + g(1) = claim); and,
where the variable's eq factor (1 - z)(1 - X) + z X is left out, h by h(0) and its leading coefficient, with
(1 - z) h(0) + z h(1) = claim (Gruen, eprint 2024/108, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.proof.scalars import Element, add, horner, inverse, mul, sub


def linear_coefficient(claim: Element, sent: Sequence[Element]) -> Element:
    """c1 of g(X) = c0 + c1 X + ..., from `sent` = c0, c2, c3, ... and g(0) + g(1) = claim."""
    rest = sub(claim, add(sent[0], sent[0]))
    for coefficient in sent[1:]:
        rest = sub(rest, coefficient)
    return rest


def next_claim(claim: Element, sent: Sequence[Element], r: Element) -> Element:
    """g(r)."""
    return horner([sent[0], linear_coefficient(claim, sent), *sent[1:]], r)


def value_at_one(claim: Element, h0: Element, z: Element) -> Element:
    """h(1) from (1 - z) h(0) + z h(1) = claim. ZeroDivisionError for z = 0, a challenge that comes up once in 2^128."""
    return mul(sub(claim, sub(h0, mul(z, h0))), inverse(z))


def quadratic(h0: Element, h1: Element, top: Element) -> list[Element]:
    """Coefficients of the polynomial of degree two with these values at 0 and 1 and this leading coefficient."""
    return [h0, sub(sub(h1, h0), top), top]


def next_eq_claim(claim: Element, h0: Element, top: Element, z: Element, r: Element) -> Element:
    """h(r)."""
    return horner(quadratic(h0, value_at_one(claim, h0, z), top), r)
