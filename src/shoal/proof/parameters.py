"""The shape of a Ligero commitment, and how many queries make it sound: counted, not guessed.

Rows of C coefficients become codewords of length L = C / rate. A prover whose columns are far from codewords is caught
by one query with probability at least (e + 1) / L, e = floor((L - C) / 2) the greatest error that is decoded to one
word only; `queries` of them, distinct, miss with at most (1 - (e + 1) / L)^queries. That a random combination of rows
is far when the rows are holds up to this radius, except with probability (variables of a row's number) * L / |F|:
Ben-Sasson, Carmon, Ishai, Kopparty, Saraf, "Proximity gaps for Reed-Solomon codes", theorem 1.2 (unique decoding), for
tensors of challenges Diamond and Gruen, "Proximity gaps in interleaved codes". Nothing here rests on a conjecture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from shoal.crypto.merkle import DIGEST_BYTES
from shoal.proof.ntt import SMALLEST
from shoal.proof.scalars import P

Goal = Literal["bytes", "time"]

FIELD_BITS = 2 * math.log2(P)
_RATES = (1, 2, 3, 4)
_COLUMN_BITS = range(SMALLEST.bit_length() - 1, 19)
SMALL_VECTOR = 1 << 20
"""Numbers up to which the smallest opening is also cheap enough to make."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """rows x 2^column_bits numbers at rate 2^-rate_bits, `queries` columns opened."""

    rows: int
    column_bits: int
    rate_bits: int
    queries: int

    @property
    def columns(self) -> int:
        return 1 << self.column_bits

    @property
    def length(self) -> int:
        """Of a codeword, and the number of columns that are hashed."""
        return self.columns << self.rate_bits

    @property
    def row_bits(self) -> int:
        """Variables that a row's number has."""
        return (self.rows - 1).bit_length()

    @property
    def bits(self) -> int:
        """Variables of the committed vector's extension: rows' first, then columns'."""
        return self.row_bits + self.column_bits

    @property
    def size(self) -> int:
        """Numbers committed to."""
        return self.rows << self.column_bits

    @property
    def depth(self) -> int:
        """Of the Merkle tree."""
        return self.column_bits + self.rate_bits

    @property
    def missed_bits(self) -> float:
        """-log2 of the probability that all queries miss a far word."""
        return self.queries * _bits_of_a_query(self.columns, self.length)

    @property
    def combination_bits(self) -> float:
        """-log2 of the probability that far rows combine to a near one. Infinite for one row: nothing is combined."""
        return FIELD_BITS - math.log2(self.row_bits * self.length) if self.row_bits else math.inf

    @property
    def conjectured_bits(self) -> float:
        """`missed_bits` if a query were good up to Johnson's bound, a miss having probability sqrt(rate).

        Proven there too, but with an error of ((columns + 1)^2 / (2 eta)^7) / |F| that leaves about 70 bits in this
        field. The stronger conjecture, rate per query, is not used: it has been refuted in general.
        """
        return self.queries * self.rate_bits / 2

    @property
    def opening_bytes(self) -> int:
        """About: the combined row, the columns, the digests that random queries lack on average."""
        digests = sum(_lonely(1 << level, self.queries) for level in range(1, self.depth + 1))
        return 16 * self.columns + 8 * self.rows * self.queries + int(DIGEST_BYTES * digests)


def choose_params(size: int, bits: float, goal: Goal | None = None) -> Parameters:
    """The shape for a vector of `size` numbers, its queries good for `bits` proven bits.

    goal  bytes: the smallest opening. time: the cheapest commitment that is not needlessly large (rate 1/2). Default:
    bytes for small vectors, where both are cheap.
    """
    if size < 1 or bits <= 0:
        raise ValueError(f"expected at least one number and a positive number of bits, found {size} and {bits}")
    goal = goal or ("bytes" if size <= SMALL_VECTOR else "time")
    rates = _RATES if goal == "bytes" else _RATES[:1]
    shapes = [_shape(size, columns, rate, bits) for rate in rates for columns in _COLUMN_BITS]
    return min((shape for shape in shapes if shape is not None), key=lambda shape: (shape.opening_bytes, shape.length))


def _shape(size: int, column_bits: int, rate_bits: int, bits: float) -> Parameters | None:
    """None where there are fewer columns than queries needed."""
    columns = 1 << column_bits
    queries = math.ceil(bits / _bits_of_a_query(columns, columns << rate_bits))
    rows = -(-size // columns)
    return Parameters(rows, column_bits, rate_bits, queries) if queries < columns << rate_bits else None


def _bits_of_a_query(columns: int, length: int) -> float:
    return -math.log2(1 - ((length - columns) // 2 + 1) / length)


def _lonely(nodes: int, queries: int) -> float:
    """Nodes of a level with nothing opened below them beside one with something."""
    empty = (1 - 1 / nodes) ** queries
    return nodes * empty * (1 - empty)
