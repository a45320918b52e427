"""Tables over a hypercube, bound one variable after another; the most significant first."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.proof.plain.scalars import Element, Field

Table = list[Element]


def bind(field: Field, table: Table, r: Element) -> Table:
    half = len(table) // 2
    return [
        field.add(low, field.times(r, field.minus(high, low)))
        for low, high in zip(table[:half], table[half:], strict=True)
    ]


def product_sum(field: Field, factors: Sequence[Table], weights: Table | None = None) -> list[Element]:
    """Coefficients of sum over x of weights[x] * product of f(X, x): degree as many as there are factors."""
    half, total = len(factors[0]) // 2, [(0, 0)] * (len(factors) + 1)
    for x in range(half):
        found = [(1, 0) if weights is None else weights[x]]
        for table in factors:
            low, slope = table[x], field.minus(table[half + x], table[x])
            found = [
                field.add(field.times(a, low), field.times(b, slope))
                for a, b in zip([*found, (0, 0)], [(0, 0), *found], strict=True)
            ]
        total = [field.add(a, b) for a, b in zip(total, found, strict=True)]
    return total


def sums(field: Field, *polynomials: Sequence[Element]) -> list[Element]:
    return [field.add(*terms) for terms in zip(*polynomials, strict=True)]


def eq_table(field: Field, point: Sequence[Element]) -> Table:
    return [field.eq(point, i) for i in range(1 << len(point))]
