"""All identities as one sumcheck (Thaler's matrix products, batched): what is summed, over what, with which weight.

Fixing the space at a random z turns identity c into: sum over m of sum over x of eq(z, x) A_m(x) B_m(x) = out_c(z),
with x over the space and the summed axes. Axes that only one factor mentions are summed into that factor at once; axes
that neither mentions give a number. What remains, the shared axes, are the variables of a `Product`: summed axes first,
then the space's. Each product is weighed by gamma^c; one with k variables fewer than the largest is weighed by 2^-k as
well: it is the same along those k, and its variables are the last ones. (Without 2^-k a prover could move a lie from
one product to another: a constant along k variables is halved k times before the other product starts.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.proof import axes, field, multilinear
from shoal.proof.axes import Vectors
from shoal.proof.circuit import Circuit, Expr, Identity
from shoal.proof.field import Ext
from shoal.proof.scalars import Element, P, scale

HALF = (P + 1) // 2


@dataclass(frozen=True, slots=True)
class Product:
    """One pair of one identity. lengths: of space and summed axes; keep: the shared axes, as they are bound."""

    a: Expr
    b: Expr
    lengths: tuple[int, ...]
    keep: tuple[int, ...]
    num_free: int
    """Axes of the space: axis i is of the space if i < num_free; the last shared axes are."""

    @property
    def bits(self) -> tuple[int, ...]:
        return tuple(bits_of(self.lengths[axis]) for axis in self.keep)

    @property
    def num_variables(self) -> int:
        return sum(self.bits)


def bits_of(length: int) -> int:
    """Variables of an axis."""
    return (length - 1).bit_length()


def products(identity: Identity) -> tuple[Product, ...]:
    lengths, free = identity.space + identity.summed, len(identity.space)
    found = []
    for a, b in identity.pairs:
        shared = sorted(axes.axes_of(a) & axes.axes_of(b), key=lambda axis: (axis < free, axis))
        found.append(Product(a, b, lengths, tuple(shared), free))
    return tuple(found)


def num_point_variables(circuit: Circuit) -> int:
    """Length of the vector z from which every identity takes its space's coordinates."""
    return max((sum(map(bits_of, identity.space)) for identity in circuit.identities), default=0)


def num_rounds(circuit: Circuit) -> int:
    parts = (product for identity in circuit.identities for product in products(identity))
    return max((product.num_variables for product in parts), default=0)


def axis_points(lengths: Sequence[int], point: Ext) -> dict[int, Ext]:
    """Axis -> its coordinates, taken in order from the front of `point`."""
    found, at = {}, 0
    for axis, length in enumerate(lengths):
        found[axis] = point[at : at + bits_of(length)]
        at += bits_of(length)
    return found


def eq_vectors(lengths: Mapping[int, int], points: Mapping[int, Ext]) -> dict[int, Ext]:
    """Axis -> eq(point of the axis, i) for its indices i."""
    return {axis: multilinear.eq_prefix(points[axis], length) for axis, length in lengths.items()}


def space_vectors(identity: Identity, point: Ext) -> dict[int, Ext]:
    """Vectors of the space's axes at z, and of ones for the summed axes."""
    free = dict(enumerate(identity.space))
    found = eq_vectors(free, axis_points(identity.space, point))
    for axis, length in enumerate(identity.summed, len(identity.space)):
        found[axis] = ones(length)
    return found


def outside_factor(product: Product, vectors: Vectors) -> Element:
    """What the axes that neither factor mentions give."""
    mentioned = axes.axes_of(product.a) | axes.axes_of(product.b)
    return axes.unmentioned(mentioned, len(product.lengths), vectors)


def output_factor(identity: Identity, vectors: Vectors) -> Element:
    """What the axes of the space that the output does not mention give."""
    return axes.unmentioned(axes.axes_of(identity.out), len(identity.space), vectors)


def split_point(product: Product, point: Ext) -> dict[int, Ext]:
    """Shared axis -> its coordinates in the sumcheck's point, whose last coordinates are the product's."""
    own = point[len(point) - product.num_variables :]
    lengths = [product.lengths[axis] for axis in product.keep]
    return {product.keep[i]: coordinates for i, coordinates in axis_points(lengths, own).items()}


def ones(length: int) -> Ext:
    return field.lift(np.ones(length, np.uint64))


def halved(value: Element, times: int) -> Element:
    """value / 2^times."""
    return scale(value, pow(HALF, times, P))
