"""All lookups as one sum of fractions (logUp, eprint 2022/1530): sum of 1 / d(lookup) - sum of m / d(table row) = 0.

A tuple (k1, k2, ...) looked up in table number t has denominator d = alpha - t - beta_1 k1 - beta_2 k2 - ... ; other
tuples, or tables, are other polynomials in the challenges, so the sum is zero only if every lookup is a row, counted m
times. Lookups' spaces and tables lie side by side in dyadic pieces (layout.py); missing leaves are 0 / 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.crypto.transcript import Transcript
from shoal.proof import axes, field, multilinear
from shoal.proof.axes import Vectors
from shoal.proof.circuit import Circuit, Lookup, Shape, Source, Table
from shoal.proof.claims import Claim, Point, Shapes, Term, add_expr
from shoal.proof.field import Base, Ext
from shoal.proof.gkr import LeafClaim
from shoal.proof.layout import Layout, Piece, layout
from shoal.proof.scalars import ONE, ZERO, Element, add, mul, neg, sub


@dataclass(frozen=True, slots=True)
class Compression:
    """alpha, and one beta for each column of the widest table."""

    alpha: Element
    betas: tuple[Element, ...]


def multiplicity_name(table: Table) -> str:
    """The source that counts how often each row is looked up; committed beside the witness."""
    return f"multiplicity of {table.name}"


def multiplicity_sources(circuit: Circuit) -> tuple[Source, ...]:
    if not circuit.lookups:
        return ()
    return tuple(Source(multiplicity_name(table), (len(table.columns[0]),), "witness") for table in circuit.tables)


def leaf_layout(circuit: Circuit) -> Layout:
    """Pieces of lookups (tensors 0, 1, ...) and then of tables."""
    spaces: list[Shape] = [lookup.space for lookup in circuit.lookups]
    return layout(spaces + [(len(table.columns[0]),) for table in circuit.tables])


def draw(circuit: Circuit, transcript: Transcript) -> Compression:
    columns = max((len(table.columns) for table in circuit.tables), default=0)
    alpha = transcript.challenge("lookup alpha")
    return Compression(alpha, tuple(field.elements(transcript.challenges("lookup betas", columns))))


def table_denominators(number: int, table: Table, compression: Compression) -> Ext:
    """(rows, 2)."""
    return denominators(number, [field.from_ints(column) for column in table.columns], compression)


def denominators(number: int, keys: Sequence[Base], compression: Compression) -> Ext:
    """alpha - number - sum of beta_j key_j, over arrays of keys of one shape."""
    total: Ext = field.ext([sub(compression.alpha, (number, 0))])[0]
    for key, beta in zip(keys, compression.betas, strict=False):
        total = field.sub(total, field.ext_scale(field.ext([beta])[0], key))
    return total


def leaf_claims(circuit: Circuit, shapes: Shapes, compression: Compression, leaf: LeafClaim) -> list[Claim]:
    """The claims on numerators and denominators as claims on sources."""
    rows = [table_denominators(number, table, compression) for number, table in enumerate(circuit.tables)]
    claims = LeafClaims(circuit, shapes, compression, rows, Claim(leaf.p), Claim(leaf.q))
    plan, covered = leaf_layout(circuit), ZERO
    for piece in plan.pieces:
        weight, vectors = piece_weights(piece, plan.shapes[piece.tensor], leaf.point)
        covered = add(covered, weight)
        if piece.tensor < len(circuit.lookups):
            claims.add_lookup(circuit.lookups[piece.tensor], weight, vectors)
        else:
            claims.add_table(piece.tensor - len(circuit.lookups), weight, vectors[0])
    claims.q.constant = add(claims.q.constant, sub(ONE, covered))
    return [claims.p, claims.q]


@dataclass(slots=True)
class LeafClaims:
    """The two claims while pieces are added to them. rows: denominators of every table's rows."""

    circuit: Circuit
    shapes: Shapes
    compression: Compression
    rows: list[Ext]
    p: Claim
    q: Claim

    def add_lookup(self, lookup: Lookup, weight: Element, vectors: Vectors) -> None:
        """A piece of a lookup: numerators 1, denominators alpha - number - sum of beta_j key_j."""
        number = next(number for number, table in enumerate(self.circuit.tables) if table.name == lookup.table)
        self.p.constant = add(self.p.constant, weight)
        self.q.constant = add(self.q.constant, mul(weight, sub(self.compression.alpha, (number, 0))))
        place = Point(vectors, lookup.space, self.shapes)
        for key, beta in zip(lookup.keys, self.compression.betas, strict=False):
            factor = axes.unmentioned(axes.axes_of(key), len(lookup.space), vectors)
            add_expr(self.q, key, mul(neg(mul(weight, beta)), factor), place)

    def add_table(self, number: int, weight: Element, vector: Ext) -> None:
        """A piece of a table: numerators are minus the multiplicities, denominators are known."""
        name = multiplicity_name(self.circuit.tables[number])
        self.p.terms.append(Term(name, neg(weight), (vector,)))
        self.q.constant = add(self.q.constant, mul(weight, field.dot_ext(self.rows[number], vector)))


def piece_weights(piece: Piece, shape: Shape, point: Ext) -> tuple[Element, dict[int, Ext]]:
    """eq(point, position) for the positions of a piece, as a number times one vector for each axis (zero outside)."""
    high = len(point) - piece.bits
    weight, at, vectors = (
        multilinear.eq(field.elements(point[:high]), _bits(piece.offset >> piece.bits, high)),
        high,
        {},
    )
    for axis, (interval, length) in enumerate(zip(piece.box, shape, strict=True)):
        vectors[axis] = np.zeros((length, 2), np.uint64)
        vectors[axis][interval.start : interval.stop] = multilinear.eq_table(point[at : at + interval.bits])
        at += interval.bits
    return weight, vectors


def _bits(value: int, count: int) -> list[Element]:
    return [(value >> (count - 1 - i) & 1, 0) for i in range(count)]
