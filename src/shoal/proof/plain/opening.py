"""Openings: the sumcheck over a committed vector, its rows' combination, codewords and hash tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

from shoal.proof.plain.coins import Coins, HashCoins
from shoal.proof.plain.scalars import GOLDILOCKS, Element, Field
from shoal.proof.rejected import ProofRejected

_LEAF, _NODE = (blake3(f"shoal merkle v1 {kind}".encode()).digest() for kind in ("leaf", "node"))


@dataclass(frozen=True, slots=True)
class VectorMessages:
    """share: what the claims' terms in this vector sum up to. rounds: coefficients 0 and 2. value: at the end."""

    share: Element
    rounds: list[list[Element]]
    value: Element


@dataclass(frozen=True, slots=True)
class CodeMessages:
    """row: of the combination. columns: opened ones, each from the first row down. digests: of the hash tree."""

    row: list[Element]
    columns: list[list[int]]
    digests: list[bytes]


@dataclass(frozen=True, slots=True)
class Shape:
    """rows x 2^columns numbers, each row a codeword of 2^(columns + rate) values, `queries` of them opened."""

    rows: int
    columns: int
    rate: int
    queries: int

    @property
    def row_bits(self) -> int:
        return (self.rows - 1).bit_length()

    @property
    def bits(self) -> int:
        return self.row_bits + self.columns


def verify_sum(field: Field, coefficients: Mapping[int, Element], sent: VectorMessages, coins: Coins) -> list[Element]:
    """The point at which the vector has to be `sent.value`. coefficients: of its positions. Raises ProofRejected."""
    claim, point = sent.share, list[Element]()
    for message in sent.rounds:
        coins.hear("opening round", message)
        r = coins.draw("opening round")[0]
        c0, c2 = message
        claim = field.polynomial([c0, field.minus(claim, field.add(c0, c0, c2)), c2], r)
        point.append(r)
    coins.hear("opening value", [sent.value])
    line = field.add((0, 0), *(field.times(c, field.eq(point, at)) for at, c in coefficients.items()))
    if claim != field.times(line, sent.value):
        raise ProofRejected("plain opening", "expected a value that makes the sumcheck's last claim")
    return point


def verify_code(
    root: bytes, shape: Shape, point: Sequence[Element], value: Element, sent: CodeMessages, coins: HashCoins
) -> None:
    """That the vector behind `root` has this value at this point. Raises ProofRejected."""
    field = GOLDILOCKS
    coins.hear("opening row", sent.row)
    queries = coins.places("opening queries", shape.queries, 1 << (shape.columns + shape.rate))
    row_point, column_point = point[: shape.row_bits], point[shape.row_bits :]
    found = field.add(*(field.times(v, field.eq(column_point, i)) for i, v in enumerate(sent.row)))
    if found != value:
        raise ProofRejected("plain value", "expected a row that has the value")
    weights = [field.eq(row_point, i) for i in range(shape.rows)]
    for query, column in zip(queries, sent.columns, strict=True):
        terms = (field.times(weight, (word, 0)) for weight, word in zip(weights, column, strict=True))
        if field.add(*terms) != codeword_at(shape, sent.row, query):
            raise ProofRejected("plain code", "expected columns that combine to the row's codeword")
    leaves = {query: _leaf(column) for query, column in zip(queries, sent.columns, strict=True)}
    if tree_root(leaves, shape.columns + shape.rate, sent.digests) != root:
        raise ProofRejected("plain tree", "expected columns below the root")


def codeword_at(shape: Shape, row: Sequence[Element], place: int) -> Element:
    """The row as a polynomial, at the place's power of a root of unity."""
    order = 1 << (shape.columns + shape.rate)
    coset, inside = place >> shape.columns, place & ((1 << shape.columns) - 1)
    exponent = _mirrored(coset, shape.rate) + (_mirrored(inside, shape.columns) << shape.rate)
    x = pow(pow(7, (GOLDILOCKS.p - 1) // order, GOLDILOCKS.p), exponent, GOLDILOCKS.p)
    a = b = 0
    for low, high in reversed(row):
        a, b = (a * x + low) % GOLDILOCKS.p, (b * x + high) % GOLDILOCKS.p
    return (a, b)


def tree_root(leaves: Mapping[int, bytes], depth: int, digests: Sequence[bytes]) -> bytes | None:
    """The root over some leaves and the digests they lack, level by level, from the left; None if those do not fit."""
    level, rest = dict(leaves), list(digests)
    for _ in range(depth):
        for place in sorted(level):
            if place ^ 1 not in level:
                if not rest:
                    return None
                level[place ^ 1] = rest.pop(0)
        level = {
            place // 2: blake3(level[place] + level[place + 1], key=_NODE).digest() for place in level if not place % 2
        }
    return None if rest else level[0]


def _leaf(column: Sequence[int]) -> bytes:
    return blake3(b"".join(word.to_bytes(8, "little") for word in column), key=_LEAF).digest()


def _mirrored(value: int, bits: int) -> int:
    return int(f"{value:0{bits}b}"[::-1], 2) if bits else 0
