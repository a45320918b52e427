"""How often a false statement passes, as an exact fraction: the union bound over every step, from the real shape."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from shoal.proof.circuit import Circuit
from shoal.proof.plain.identities import num_coordinates, num_rounds
from shoal.proof.plain.lookups import leaf_shapes
from shoal.proof.plain.opening import Shape
from shoal.proof.plain.places import places

LEAST_BITS = 100


def num_leaves(circuit: Circuit) -> int:
    return places(leaf_shapes(circuit))[1] if circuit.lookups else 0


def num_levels(circuit: Circuit) -> int:
    leaves = num_leaves(circuit)
    return (leaves - 1).bit_length() if leaves else 0


def degrees(circuit: Circuit) -> int:
    """What all steps but the commitments' add up to, over the field's size (Schwartz and Zippel)."""
    levels = num_levels(circuit)
    tree = sum(2 * level + 2 for level in range(levels))
    claims = (2 if levels else 0) + sum(2 * len(identity.pairs) for identity in circuit.identities)
    identities = num_coordinates(circuit) + max(len(circuit.identities) - 1, 0) + 3 * num_rounds(circuit)
    return num_leaves(circuit) + tree + identities + claims


def commitment_error(shape: Shape, field_size: int) -> Fraction:
    """Far columns that no query meets; rows that combine to a near word by chance; the opening's sumcheck."""
    length, columns = 1 << (shape.columns + shape.rate), 1 << shape.columns
    decoded = (length - columns) // 2
    missed = Fraction(1)
    for query in range(shape.queries):  # distinct queries, none of them among the decoded + 1 wrong places
        missed *= Fraction(max(length - decoded - 1 - query, 0), length - query)
    return missed + Fraction(shape.row_bits * length + 2 * shape.bits, field_size)


def error(circuit: Circuit, shapes: Sequence[Shape], field_size: int) -> Fraction:
    return Fraction(degrees(circuit), field_size) + sum(commitment_error(shape, field_size) for shape in shapes)


def is_enough(circuit: Circuit, shapes: Sequence[Shape], field_size: int) -> bool:
    return bool(error(circuit, shapes, field_size) <= Fraction(1, 2**LEAST_BITS))
