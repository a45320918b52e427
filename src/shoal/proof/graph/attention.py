"""Softmax, normalisations, rotary positions and causal attention, made of operators."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

from shoal.proof.circuit import Index
from shoal.proof.graph import operators, tables
from shoal.proof.graph.builder import Builder, Sum, axis, identity
from shoal.proof.graph.ir import InverseRoot, Requantize, Softmax

SAFE = 1 << 59
"""Sums of squares, and products with their reciprocal roots, stay below it.

A range check may be twice as long as asked for, squares then four times as large, and a sum is compared with another:
all of that is still below half the field.
"""


@dataclass(frozen=True, slots=True)
class SoftmaxScale:
    """fraction: of the exponents (rows sum to one within about 2^-fraction). one: bits of 1.0. rows of the table."""

    fraction: int
    one: int
    rows: int


def softmax(b: Builder, name: str, x: str, scale: SoftmaxScale) -> str:
    """Along the last axis; the operand may be an unrounded sum of products."""
    x, shift = operators.enough_fraction(b, name, x, scale.fraction)
    held, length = b.tensors[x], b.tensors[x].shape[-1]
    low, high = (end >> shift for end in (held.low, held.high))
    # The logarithm of the sum is at least the largest entry (less a step of rounding) and at most log n above it.
    most = high + 1 + ceil(log(length) * 2.0**scale.fraction) + 1
    stored = f"exponential {scale.fraction} {scale.one} {scale.rows}"
    how = Softmax(shift, stored, scale.one, low - 1, most)
    return b.softmax(name, x, how, tables.exponentials(scale.fraction, scale.one, scale.rows))


@dataclass(frozen=True, slots=True)
class Norm:
    """x / |x| along the last axis. epsilon: added to the mean square. centred: the mean is taken away first.

    mantissa: bits of the reciprocal root's table (even). fraction: of the result, whose entries are at most 1; times
    sqrt(n) it is what LayerNorm and RMSNorm call normalised, a factor that goes into the gain. rounded: bits by which
    the last product is rounded, if the root is first to lose the bits beyond that.
    """

    epsilon: float
    centred: bool
    mantissa: int
    fraction: int
    rounded: int | None = None


def normalise(b: Builder, name: str, x: str, how: Norm) -> str:
    shape = b.tensors[x].shape
    length, scale, rank = shape[-1], 1, len(shape)
    if how.centred:
        x, scale = _centred(b, f"{name}.centred", x), length
    x = _fewer_bits(b, f"{name}.short", x, how, scale)
    lead = tuple(axis(place) for place in range(rank - 1))
    row = (*lead, axis(rank))
    squares = b.contract(f"{name}.squares", x, x, Sum((*shape[:-1], 1), (length,), row, row))
    least = _least(how, length, scale, b.tensors[x].fraction)
    total = b.affine(f"{name}.sum", [(1, squares, identity(rank))], (*shape[:-1], 1), least)
    root = _inverse_root(b, f"{name}.root", total, how.mantissa)
    if how.rounded is not None:
        root = _shorter(b, f"{name}.shorter", root, how.fraction + how.rounded - b.tensors[x].fraction)
    product = b.contract(f"{name}.product", x, root, Sum(shape, (), identity(rank), (*lead, Index())))
    shift = b.tensors[product].fraction - how.fraction
    bound = 1 << (how.fraction + 1)
    return b.requantize(name, product, Requantize(shift, -bound, bound - 1))


def _least(how: Norm, length: int, scale: int, fraction: int) -> int:
    """What is added to a sum of squares: epsilon, in the operand's scale (it stands for scale * x), and enough that the
    table's smallest mantissa is reached.
    """
    return max(round(how.epsilon * length * scale**2 * 4.0**fraction), 1 << (how.mantissa - 2))


def _centred(b: Builder, name: str, x: str) -> str:
    """n x - sum x: n times the distance from the mean, exactly."""
    shape = b.tensors[x].shape
    lead = identity(len(shape) - 1)
    return b.affine(name, [(shape[-1], x, identity(len(shape))), (-1, x, (*lead, Index(summed=True)))], shape)


def _fewer_bits(b: Builder, name: str, x: str, how: Norm, scale: int) -> str:
    """x itself, or rounded by as few bits as keep all sums and products SAFE."""
    held, length = b.tensors[x], b.tensors[x].shape[-1]
    most = max(abs(held.low), abs(held.high))
    shift = next(
        s for s in range(62) if _is_safe(how, (most >> s) + 1, _least(how, length, scale, held.fraction - s), length)
    )
    if shift == 0:
        return x
    half = 1 << (shift - 1)
    return b.requantize(name, x, Requantize(shift, (held.low + half) >> shift, (held.high + half) >> shift))


def _is_safe(how: Norm, most: int, least: int, length: int) -> bool:
    squares = length * most**2 + least
    exponents = _exponents(squares, how.mantissa)
    root = 1 << (how.mantissa + 1 + exponents)
    if how.rounded is not None:
        # The operand's fraction cancels: both the root's and the wanted one have it, negated.
        root >>= max(3 * how.mantissa // 2 + exponents - how.fraction - how.rounded, 0)
    return squares < SAFE and most * root < SAFE


def _shorter(b: Builder, name: str, root: str, fraction: int) -> str:
    """The root with fewer fractional bits. Long rows keep fewer significant ones."""
    shift = b.tensors[root].fraction - fraction
    if shift <= 0:
        return root
    return b.requantize(name, root, Requantize(shift, 0, (b.tensors[root].high >> shift) + 1))


def _inverse_root(b: Builder, name: str, x: str, mantissa: int) -> str:
    how = InverseRoot(f"inverse roots {mantissa}", mantissa, _exponents(b.tensors[x].high, mantissa))
    return b.inverse_root(name, x, how, tables.inverse_roots(mantissa))


def _exponents(most: int, mantissa: int) -> int:
    """The largest e that numbers up to `most` need."""
    return max(-(-(most.bit_length() - mantissa) // 2), 0)
