"""Linear claims: sum of coefficient * <source, u_1 x u_2 x ...> + constant = value, a vector for each axis of a source.

Whatever the protocol asks about an expression at a random point is of this kind. Terms on public numbers are evaluated
by the verifier; the others are left to the opening of a commitment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as default
from math import prod

import numpy as np
import numpy.typing as npt

from shoal.proof import axes, field
from shoal.proof.axes import Box, Vectors
from shoal.proof.circuit import Circuit, Expr
from shoal.proof.contract import contract
from shoal.proof.field import Ext
from shoal.proof.scalars import ZERO, Element, P, add, mul, scale, sub


@dataclass(frozen=True, slots=True)
class Term:
    """coefficient * <source, the product of the vectors>."""

    source: str
    coefficient: Element
    vectors: tuple[Ext, ...]


@dataclass(slots=True)
class Claim:
    """The terms and the constant make up `value`."""

    value: Element = ZERO
    constant: Element = ZERO
    terms: list[Term] = default(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes of the sources, and the public numbers that gather axes."""

    of: Mapping[str, tuple[int, ...]]
    gathers: Mapping[str, npt.NDArray[np.int64]]

    def box(self, *lengths: int) -> Box:
        return Box(lengths, self.gathers)


def shapes_of(circuit: Circuit, public: Mapping[str, npt.NDArray[np.int64]]) -> Shapes:
    known = {**public, **circuit.constants}
    reads = (read for group in _exprs(circuit) for read in group.reads)
    names = {index.gather for read in reads for index in read.indices if index.gather is not None}
    return Shapes({source.name: source.shape for source in circuit.sources}, {name: known[name] for name in names})


@dataclass(frozen=True, slots=True)
class Point:
    """Where an expression is taken: a vector for each axis of a space, with the axes' lengths."""

    vectors: Vectors
    lengths: tuple[int, ...]
    shapes: Shapes


def add_expr(claim: Claim, expr: Expr, factor: Element, at: Point) -> None:
    """Adds factor * (the expression with every axis it mentions summed with its vector) to the claim."""
    mentioned, box = axes.axes_of(expr), at.shapes.box(*at.lengths)
    totals = {axis: axes.total(at.vectors[axis]) for axis in mentioned} if _needs_totals(expr, mentioned) else {}
    for read in expr.reads:
        weight = scale(factor, read.coefficient % P)
        for axis in mentioned - axes.axes_of_read(read):
            weight = mul(weight, totals[axis])
        shape = at.shapes.of[read.source]
        parts = [axes.weights(index, at.vectors, n, box) for index, n in zip(read.indices, shape, strict=True)]
        claim.terms.append(Term(read.source, weight, tuple(parts)))
    constant = scale(factor, expr.constant % P)
    for axis in mentioned if expr.constant else ():
        constant = mul(constant, totals[axis])
    claim.constant = add(claim.constant, constant)


def combine(claims: Iterable[Claim], challenge: Element) -> Claim:
    """sum of challenge^i * claim i, as one claim."""
    result, power = Claim(), (1, 0)
    for claim in claims:
        result.value = add(result.value, mul(power, claim.value))
        result.constant = add(result.constant, mul(power, claim.constant))
        result.terms += [Term(t.source, mul(power, t.coefficient), t.vectors) for t in claim.terms]
        power = mul(power, challenge)
    return result


def settle(claim: Claim, known: Mapping[str, npt.NDArray[np.integer]]) -> Claim:
    """The same claim about the sources that are not in `known`: the others' terms and the constant are subtracted."""
    rest = sub(claim.value, claim.constant)
    for term in claim.terms:
        if term.source in known:
            rest = sub(rest, value_of(term, known[term.source]))
    return Claim(rest, ZERO, [term for term in claim.terms if term.source not in known])


def value_of(term: Term, numbers: npt.NDArray[np.integer]) -> Element:
    """What a term is worth, given the source's integers."""
    data: npt.NDArray[np.generic] = numbers
    is_ext = False
    for vector in term.vectors:
        inner = data.shape[1:] if not is_ext else data.shape[1:-1]
        data = contract(data.reshape((1, len(vector), prod(inner), *((2,) if is_ext else ()))), vector[:, None], is_ext)
        data, is_ext = data.reshape((*inner, 2)), True
    if not is_ext:
        return mul(term.coefficient, (int(field.from_ints(numbers.reshape(-1))[0]), 0))
    return mul(term.coefficient, field.element(data.reshape(2).astype(np.uint64)))


def _needs_totals(expr: Expr, mentioned: frozenset[int]) -> bool:
    return bool(expr.constant) or any(axes.axes_of_read(read) != mentioned for read in expr.reads)


def _exprs(circuit: Circuit) -> Iterable[Expr]:
    for lookup in circuit.lookups:
        yield from lookup.keys
    for identity in circuit.identities:
        yield identity.out
        for pair in identity.pairs:
            yield from pair
