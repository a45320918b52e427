"""What is proven: tensors of integers that satisfy identities and table lookups. Data only; no cryptography.

A circuit names its sources (tensors of integers) and states constraints on them. Every constraint ranges over a space
of index tuples; an `Expr` gives an integer for each of them by reading sources. The prover knows all sources, the
verifier the public ones and the constants, and the weights either as numbers or as a commitment.

Rules that stay true in this file:
- a read maps each axis of its source to at most a few axes of the space, and two axes of a source never share one: then
  what a constraint says at a random point is, for every read, a product of one vector per axis (cheap for both sides);
- reading outside a source gives zero, so convolutions need no padded copies;
- an `Expr` mentions the axes its reads mention; a read (or the constant) that lacks one of them is the same along it,
  within the axis' range, and zero beyond it;
- every witness source is held to a range by some lookup (`bounds.py` refuses circuits where one is not, or where a sum
  could pass half the field, so that identities modulo the prime are identities of integers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
IntArray = npt.NDArray[np.int64]
Kind = Literal["witness", "weight", "public", "constant"]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of integers. shape () is one number.

    kind  witness: the prover's, committed for each proof. weight: the model's, the same in every proof. public: input
          or output, known to the verifier. constant: part of the circuit (its values are in `Circuit.constants`).
    bounds  least and greatest value, for weights that may be committed and public numbers; others have none. Numbers
          outside are refused where they are seen; what is in a weight commitment is believed to be inside.
    """

    name: str
    shape: Shape
    kind: Kind
    bounds: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """How the space picks an index of one axis of a source: offset + sum of stride * i[axis] over `terms`.

    No terms: always `offset`. summed: the whole axis is summed up, whatever the space. gather: the number so picked is
    looked up in this one-dimensional public source, whose entry is the index (embedding rows by token).
    """

    terms: tuple[tuple[int, int], ...] = ()
    offset: int = 0
    summed: bool = False
    gather: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """coefficient * source[indices], one `Index` for each axis of the source."""

    source: str
    indices: tuple[Index, ...]
    coefficient: int = 1


@dataclass(frozen=True, slots=True)
class Expr:
    """constant + the sum of the reads. Affine, so that its value at a random point is linear in the sources."""

    reads: tuple[Read, ...] = ()
    constant: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Allowed rows: columns of equal length, integers; a row holds one entry of each. Public and fixed by the model."""

    name: str
    columns: tuple[IntArray, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """For every index of `space`, the tuple of keys is a row of `table`."""

    label: str
    space: Shape
    table: str
    keys: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """For every index of `space`: the sum over `summed` of the sum of a * b over `pairs` equals `out`.

    Axes are numbered through: 0 .. len(space) - 1 are the space's, the following ones the summed space's. `out` reads
    axes of the space alone. Matrix products, convolutions, attention, products element by element (summed is ()) and
    plain equalities (no pairs: out is zero) are all of this kind.
    """

    label: str
    space: Shape
    summed: Shape
    pairs: tuple[tuple[Expr, Expr], ...]
    out: Expr


@dataclass(frozen=True, slots=True)
class Circuit:
    """Sources, tables and constraints, in a fixed order; `digest.py` hashes them all, constants included."""

    sources: tuple[Source, ...]
    tables: tuple[Table, ...]
    lookups: tuple[Lookup, ...]
    identities: tuple[Identity, ...]
    constants: dict[str, IntArray] = field(default_factory=dict)
