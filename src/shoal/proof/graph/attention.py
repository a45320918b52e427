"""Softmax, normalisations, rotary positions and causal attention, made of operators."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

from shoal.proof.circuit import Index
from shoal.proof.graph import operators, tables
from shoal.proof.graph.builder import Builder, Sum, axis, identity
from shoal.proof.graph.ir import InverseRoot, Requantize, Softmax

SAFE_SQUARES = 52
"""Bits that a sum of squares may have: products with its reciprocal root then stay below 2^62."""


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
    length, scale = shape[-1], 1
    if how.centred:
        x, scale = _centred(b, f"{name}.centred", x), length
    x = _fewer_bits(b, f"{name}.short", x, length)
    fraction = b.tensors[x].fraction
    rank = len(shape)
    lead = tuple(axis(place) for place in range(rank - 1))
    squares = b.contract(
        f"{name}.squares", x, x, Sum((*shape[:-1], 1), (length,), (*lead, axis(rank)), (*lead, axis(rank)))
    )
    # The operand stands for scale * (x - mean), so does epsilon; it keeps the table's smallest mantissa away from zero.
    epsilon = round(how.epsilon * length * scale**2 * 4.0**fraction)
    least = max(epsilon, 1 << (how.mantissa - 2))
    total = b.affine(f"{name}.sum", [(1, squares, identity(rank))], (*shape[:-1], 1), least)
    root = _inverse_root(b, f"{name}.root", total, how.mantissa)
    if how.rounded is not None:
        root = _shorter(b, f"{name}.shorter", root, how.fraction + how.rounded - fraction)
    product = b.contract(f"{name}.product", x, root, Sum(shape, (), identity(rank), (*lead, Index())))
    shift = b.tensors[product].fraction - how.fraction
    bound = 1 << (how.fraction + 1)
    return b.requantize(name, product, Requantize(shift, -bound, bound - 1))


def _centred(b: Builder, name: str, x: str) -> str:
    """n x - sum x: n times the distance from the mean, exactly."""
    shape = b.tensors[x].shape
    lead = identity(len(shape) - 1)
    return b.affine(name, [(shape[-1], x, identity(len(shape))), (-1, x, (*lead, Index(summed=True)))], shape)


def _fewer_bits(b: Builder, name: str, x: str, length: int) -> str:
    """x rounded so that `length` squares sum to at most SAFE_SQUARES bits."""
    held = b.tensors[x]
    allowed = (SAFE_SQUARES - length.bit_length()) // 2
    shift = max(max(abs(held.low), abs(held.high)).bit_length() - allowed, 0)
    if shift == 0:
        return x
    half = 1 << (shift - 1)
    return b.requantize(name, x, Requantize(shift, (held.low + half) >> shift, (held.high + half) >> shift))


def _shorter(b: Builder, name: str, root: str, fraction: int) -> str:
    """The root with fewer fractional bits. Long rows keep fewer significant ones."""
    shift = b.tensors[root].fraction - fraction
    if shift <= 0:
        return root
    return b.requantize(name, root, Requantize(shift, 0, (b.tensors[root].high >> shift) + 1))


def _inverse_root(b: Builder, name: str, x: str, mantissa: int) -> str:
    exponents = max(-(-(b.tensors[x].high.bit_length() - mantissa) // 2), 0)
    how = InverseRoot(f"inverse roots {mantissa}", mantissa, exponents)
    return b.inverse_root(name, x, how, tables.inverse_roots(mantissa))
