"""Some number of several is zero: the gaps of a window and, where rectified, the output itself. None is negative.

Their product is zero. Each number is replaced by the sum of its limbs (zero exactly when the number is), and a product
of more than two is cut by columns of partial products. Where the product could pass half the field, an indicator b_k
for each gap instead: b_k is 0 or 1, sum b_k h_k = 0, and sum b_k = 1, or (1 - sum b_k) is 0 or 1 and times y zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as tuples
from math import prod
from typing import Any

import numpy as np

from shoal.proof.circuit import Expr, Index, Read, Shape
from shoal.proof.graph.builder import identity
from shoal.proof.graph.ir import Ints
from shoal.proof.lower.emitter import Emitter, Known, Ranged, range_table, total
from shoal.proof.lower.form import Factors, Form, flat, plain_factors, read_source

SAFE_BITS = 62
"""Products and sums of integers below 2^62 are below half the field's prime."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """gap: (shape + window) numbers; floor: (shape) numbers or none. `factors` are those of `shape`."""

    shape: Shape
    window: Shape
    factors: Factors
    gap: Ranged
    floor: Ranged | None

    def products(self) -> list[_Limbs]:
        """Every candidate as a sum of limbs."""
        gaps = [_Limbs(self.gap, place) for place in tuples(*(range(length) for length in self.window))]
        return gaps if self.floor is None else [*gaps, _Limbs(self.floor, ())]


@dataclass(frozen=True, slots=True)
class _Limbs:
    """The sum of a number's limbs, at one place of the window."""

    number: Ranged
    place: tuple[int, ...]

    @property
    def most(self) -> int:
        return self.number.highest * len(self.number.limbs)

    def expr(self, factors: Factors) -> Expr:
        """Over the output's axes."""
        fixed = tuple(Index(offset=offset) for offset in self.place)
        reads = (read_source(name, factors) for name, _ in self.number.limbs)
        return Expr(tuple(Read(read.source, (*read.indices, *fixed)) for read in reads))

    def value(self, known: Known) -> Ints:
        at: Any = (..., *self.place)
        return total([known.columns[name][at] for name, _ in self.number.limbs])


@dataclass(frozen=True, slots=True)
class _Column:
    """A partial product."""

    name: str
    most: int

    def expr(self, factors: Factors) -> Expr:
        return Expr((read_source(self.name, factors),))

    def value(self, known: Known) -> Ints:
        return known.columns[self.name]


def some_is_zero(emitter: Emitter, name: str, among: Candidates) -> None:
    numbers: list[_Limbs | _Column] = [*among.products()]
    if prod(max(number.most, 1) for number in numbers) >= 1 << SAFE_BITS:
        return _indicated(emitter, name, among)
    label = f"{name} is attained"
    while len(numbers) > 2:
        first, second, *rest = numbers
        column = _product_column(emitter, f"{name}.product{len(rest)}", first, second, among)
        emitter.equal(f"{label} {len(rest)}", _times(first, second, among.factors), column.expr(among.factors))
        numbers = [*rest, column]
    if len(numbers) == 2:
        return emitter.equal(label, _times(numbers[0], numbers[1], among.factors), Expr())
    return emitter.equal(label, Form(flat(among.factors), numbers[0].expr(among.factors)), Expr())


def _times(first: _Limbs | _Column, second: _Limbs | _Column, factors: Factors) -> Form:
    return Form(flat(factors), Expr(), (), ((first.expr(factors), second.expr(factors)),))


def _product_column(
    emitter: Emitter, name: str, first: _Limbs | _Column, second: _Limbs | _Column, among: Candidates
) -> _Column:
    emitter.column(name, among.shape, lambda known: first.value(known) * second.value(known))
    return _Column(name, first.most * second.most)


# ---- indicators


def _indicated(emitter: Emitter, name: str, among: Candidates) -> None:
    lengths, rank = (*among.shape, *among.window), len(among.shape)
    chosen = emitter.column(f"{name}.chosen", lengths, lambda known: _first_zero(known, among))
    bit = range_table(1)
    emitter.lookup(f"{chosen} is a bit", lengths, bit, (Expr((Read(chosen, identity(len(lengths))),)),))
    window = plain_factors(among.window)
    both = (*among.factors, *window)
    gaps = ((Expr((read_source(chosen, both),)), among.gap.expr(both)),)
    emitter.equal(f"{name} is attained", Form(flat(among.factors), Expr(), flat(window), gaps), Expr())
    summed = (Index(summed=True),) * len(window)
    own = read_source(chosen, among.factors, -1)
    none = Expr((Read(chosen, (*own.indices[:rank], *summed), -1),), 1)
    if among.floor is None:
        return emitter.equal(f"{name} is attained once", Form(flat(among.factors), none), Expr())
    plain = Expr((Read(chosen, (*identity(rank), *summed), -1),), 1)
    emitter.lookup(f"{name} is attained at most once", among.shape, bit, (plain,))
    floor = Form(flat(among.factors), Expr(), (), ((none, among.floor.expr(among.factors)),))
    return emitter.equal(f"{name} is zero where no entry is it", floor, Expr())


def _first_zero(known: Known, among: Candidates) -> Ints:
    """1 at the first zero gap of each window, else 0."""
    digits = total([known.columns[name] for name, _ in among.gap.limbs])
    zero = (digits == 0).reshape(*among.shape, -1)
    first = zero & (np.cumsum(zero, axis=-1) == 1)
    chosen: Ints = first.reshape(digits.shape).astype(np.int64)
    return chosen
