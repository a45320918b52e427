"""Single elements of the extension field, as pairs of Python integers: what a verifier does a few thousand times.

F = GF(p)[x] / (x^2 - 7), p = 2^64 - 2^32 + 1; an element is (a, b), meaning a + b x, both canonical (0 <= a, b < p).
"""

from __future__ import annotations

from collections.abc import Sequence

P = 0xFFFF_FFFF_0000_0001
W = 7
"""x^2; not a square modulo p."""

Element = tuple[int, int]

ZERO: Element = (0, 0)
ONE: Element = (1, 0)


def lift(value: int) -> Element:
    """An integer as an element of the base field inside F."""
    return (value % P, 0)


def add(u: Element, v: Element) -> Element:
    return ((u[0] + v[0]) % P, (u[1] + v[1]) % P)


def sub(u: Element, v: Element) -> Element:
    return ((u[0] - v[0]) % P, (u[1] - v[1]) % P)


def neg(u: Element) -> Element:
    return (-u[0] % P, -u[1] % P)


def mul(u: Element, v: Element) -> Element:
    a, b = u
    d, e = v
    return ((a * d + W * b * e) % P, (a * e + b * d) % P)


def scale(u: Element, factor: int) -> Element:
    """u times an integer."""
    return (u[0] * factor % P, u[1] * factor % P)


def inverse(u: Element) -> Element:
    """1 / u. Raises ZeroDivisionError for zero."""
    norm = (u[0] * u[0] - W * u[1] * u[1]) % P
    if norm == 0:
        raise ZeroDivisionError("zero has no inverse")
    over = pow(norm, -1, P)
    return (u[0] * over % P, -u[1] * over % P)


def power(u: Element, exponent: int) -> Element:
    """u^exponent, exponent >= 0."""
    result = ONE
    while exponent:
        if exponent & 1:
            result = mul(result, u)
        u = mul(u, u)
        exponent >>= 1
    return result


def horner(coefficients: Sequence[Element], at: Element) -> Element:
    """sum of coefficients[i] * at^i."""
    result = ZERO
    for coefficient in reversed(coefficients):
        result = add(mul(result, at), coefficient)
    return result


def is_canonical(u: Element) -> bool:
    return 0 <= u[0] < P and 0 <= u[1] < P
