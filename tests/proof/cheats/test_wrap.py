"""No sum wraps: circuits that `bounds` accepts are attacked with the field elements that satisfy their constraints."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from forger import forge
from statements import told, used

from shoal.core.errors import InvalidRequest
from shoal.proof.bounds import check_bounds
from shoal.proof.circuit import Circuit, Expr, Identity, Lookup, Read, Source, Table
from shoal.proof.fakes import Example, along, dense, read
from shoal.proof.plain.verify import verify_plain
from shoal.proof.prover import prove
from shoal.proof.scalars import P
from shoal.proof.verifier import verify


def balanced(value: int) -> int:
    return (value + P // 2) % P - P // 2


def product_circuit(tables: list[list[int]], c: list[int], summed: int) -> Circuit:
    """a in table 0; c1 b + c2 a + c0 in table 1; c3 d + c4 b = sum of (c5 a + c6) (c7 b)."""
    sources = tuple(Source(name, (1,), "witness") for name in "abd")
    a, b, d = (Read(name, along(0)) for name in "abd")
    key = Expr((replace(b, coefficient=c[1]), replace(a, coefficient=c[2])), c[0])
    pair = (Expr((replace(a, coefficient=c[5]),), c[6]), Expr((replace(b, coefficient=c[7]),)))
    out = Expr((replace(d, coefficient=c[3]), replace(b, coefficient=c[4])))
    return Circuit(
        sources,
        tuple(Table(f"table {i}", (np.array(sorted(ends)),)) for i, ends in enumerate(tables)),
        (Lookup("a", (1,), "table 0", (Expr((a,)),)), Lookup("b", (1,), "table 1", (key,))),
        (Identity("d", (1,), (summed,), (pair,), out),),
    )


def coefficient(dice: random.Random) -> int:
    """Small, a power of two, minus one, its inverse modulo p, or anything; as integers or below p."""
    power = 1 << dice.choice((0, 4, 8, 16, 32, 61))
    return dice.choice((1, 1, -1, dice.randint(-4, 4), power, P - power, pow(power, -1, P), dice.randint(-P, P)))


def accepted_circuits(count: int) -> Iterator[tuple[list[list[int]], list[int], int, dict[str, tuple[int, int]]]]:
    """Random circuits that pass: their tables, coefficients, length of the sum and derived ranges."""
    dice = random.Random(7)
    while count:
        reach = [1 << dice.choice((1, 8, 16, 30, 60)) for _ in range(2)]
        tables = [sorted({dice.randint(-r, r), dice.choice((0, r))}) for r in reach]
        c, summed = [coefficient(dice) for _ in range(8)], 1 << dice.choice((0, 6, 12, 30))
        try:
            yield tables, c, summed, check_bounds(product_circuit(tables, c, summed), {})
        except InvalidRequest:
            continue
        count -= 1


def test_what_holds_modulo_p_holds_for_integers() -> None:
    """Numbers that satisfy the constraints modulo p, taken nearest zero: in range, and so they do as integers."""
    for tables, c, summed, ranges in accepted_circuits(100):
        for a, k in product(*tables):
            b = balanced(pow(c[1], -1, P) * (k - c[0] - c[2] * a))
            total = summed * (c[5] * a + c[6]) * c[7] * b
            d = balanced(pow(c[3], -1, P) * (total - c[4] * b))
            found = dict(zip("abd", (a, b, d), strict=True))
            assert all(ranges[name][0] <= value <= ranges[name][1] for name, value in found.items()), (c, found, ranges)
            assert balanced(c[3]) * d + balanced(c[4]) * b == total
            scales = [1, *(pow(factor, -1, P) for factor in c[1:3] if factor % P)]
            scaled = ([balanced(f * x) for x in (1, c[0], c[1], c[2])] for f in scales)
            assert any(one * k == zero + first * b + second * a for one, zero, first, second in scaled)


def test_sums_just_below_the_limit() -> None:
    """Half the field is for both sides: an output of up to a quarter is accepted, one more is not."""
    tables, most, c = [[0, 255], [0, 255]], (P // 2 - 1) // (2 * 255 * 255), [0, 1, 0, 1, 0, 1, 0, 1]
    assert check_bounds(product_circuit(tables, c, most), {})["d"] == (0, most * 255 * 255)
    with pytest.raises(InvalidRequest, match="half the field"):
        check_bounds(product_circuit(tables, c, most + 1), {})


@pytest.mark.parametrize(("x", "w"), [(-8, -8), (-8, 7), (7, -8), (7, 7), (0, -8)])
def test_extreme_numbers(x: int, w: int) -> None:
    """Every input and weight at an end of its range: accumulators, quotients and remainders at theirs."""
    true = dense()
    inputs, weights = np.full_like(true.public["x"], x), np.full_like(true.weights["w"], w)
    total = inputs @ weights.astype(np.int64)
    public = {"x": inputs, "y": np.maximum(total >> 4, 0)}
    example = Example(true.circuit, {"w": weights}, public, {"q": total >> 4, "r": total & 15})
    proof = prove(example.circuit, example.weights, example.public, example.witness)
    verify(example.circuit, example.public, proof, weights=example.weights)
    verify_plain(example.circuit, example.public, proof, example.weights)


@pytest.mark.parametrize("value", [-(1 << 62), -1, 0, 1, 1 << 62])
def test_numbers_near_the_ends_of_the_field(value: int) -> None:
    """A table's entries and a public number as large as half the field allows."""
    sources = (Source("s", (), "witness"), Source("y", (), "public"))
    table = Table("value", (np.array([value]),))
    same = Identity("same", (), (), (), Expr((Read("s", ()), Read("y", (), -1))))
    circuit = Circuit(sources, (table,), (Lookup("value", (), "value", (Expr((Read("s", ()),)),)),), (same,))
    example = Example(circuit, {}, {"y": np.array(value)}, {"s": np.array(value)})
    if abs(value) * 2 >= P // 2:
        with pytest.raises(InvalidRequest, match="half the field"):
            prove(circuit, {}, example.public, example.witness)
        return
    proof = prove(circuit, {}, example.public, example.witness)
    verify(circuit, example.public, proof)
    verify_plain(circuit, example.public, proof)


def one_number(length: int) -> Example:
    circuit = Circuit(
        (Source("s", (length,), "witness"),),
        (Table("three", (np.array([3]),)),),
        (Lookup("three", (length,), "three", (read("s", 0),)),),
        (),
    )
    return Example(circuit, {}, {}, {"s": np.full(length, 3)})


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 255])
def test_degenerate_shapes(length: int) -> None:
    """One number in one row, a row filled to the last number, one number beyond."""
    example = one_number(length)
    proof = prove(example.circuit, {}, {}, example.witness)
    assert forge(told(example), used(example)) == proof
    verify(example.circuit, {}, proof)
    verify_plain(example.circuit, {}, proof)
