"""True statements to lie about, and how an example is told to a verifier or used by a forger."""

from __future__ import annotations

from typing import Any

import numpy as np
from forger import Told, Used

from shoal.proof.circuit import Circuit, Expr, Identity, IntArray, Lookup, Read, Source, Table
from shoal.proof.fakes import Arrays, Example, along, read
from shoal.proof.plain.lookups import counts_name
from shoal.proof.plain.places import Tensor
from shoal.proof.satisfy import value_at
from shoal.proof.scalars import P


def two_layers(seed: int = 3) -> Example:
    """y = x w1 w2, square matrices."""
    random = np.random.default_rng(seed)
    x, first, second = random.integers(-5, 6, (2, 3)), random.integers(-5, 6, (3, 3)), random.integers(-5, 6, (3, 3))
    h = x @ first
    sources = (
        Source("x", x.shape, "public"),
        Source("first", first.shape, "weight", (-5, 5)),
        Source("second", second.shape, "weight", (-5, 5)),
        Source("h", h.shape, "witness"),
        Source("y", h.shape, "public"),
    )
    identities = (
        Identity("first", h.shape, (3,), ((read("x", 0, 2), read("first", 2, 1)),), read("h", 0, 1)),
        Identity("second", h.shape, (3,), ((read("h", 0, 2), read("second", 2, 1)),), read("y", 0, 1)),
    )
    circuit = Circuit(sources, (), (), identities)
    return Example(circuit, {"first": first, "second": second}, {"x": x, "y": h @ second}, {"h": h})


def softmax(scale: int = 1) -> Example:
    """Rows of 64 e / sum(e), rounded down: e from a table, the remainder at least zero and below the sum.

    scale: what the outputs are multiplied by; only 1 is true.
    """
    x = np.array([[0, 3, 7, 2], [5, 5, 1, 0]])
    exps = np.round(np.exp(np.arange(8) / 4) * 4).astype(np.int64)
    e = exps[x]
    total = e.sum(axis=1)
    out = scale * (64 * e // total[:, None])
    rest = 64 * e - out * total[:, None]
    shape, row = x.shape, Read("total", along(0))
    gap = Expr((row, Read("rest", along(0, 1), -1)), -1)
    circuit = Circuit(
        (
            Source("x", shape, "public"),
            Source("e", shape, "witness"),
            Source("total", total.shape, "witness"),
            Source("rest", shape, "witness"),
            Source("out", shape, "public"),
        ),
        (Table("exp", (np.arange(8), exps)), Table("byte", (np.arange(128),))),
        (
            Lookup("exp", shape, "exp", (read("x", 0, 1), read("e", 0, 1))),
            Lookup("rest is no less than zero", shape, "byte", (read("rest", 0, 1),)),
            Lookup("rest is below the sum", shape, "byte", (gap,)),
        ),
        (
            Identity("sum", total.shape, (4,), ((read("e", 0, 1), Expr((), 1)),), read("total", 0)),
            Identity(
                "quotient",
                shape,
                (),
                ((read("out", 0, 1), Expr((row,))),),
                Expr((Read("e", along(0, 1), 64), Read("rest", along(0, 1), -1))),
            ),
        ),
    )
    return Example(circuit, {}, {"x": x, "out": out}, {"e": e, "total": total, "rest": rest})


def numbers(seed: int = 0) -> Example:
    """s = y0 (y1 + 7): factors that stay in the base field."""
    first, second = (Expr((Read("y", along(0)),)), Expr((Read("y", along(0)),), 7))
    circuit = Circuit(
        (Source("y", (1,), "public"), Source("s", (1,), "witness")),
        (Table("any", (np.arange(64),)),),
        (Lookup("in range", (1,), "any", (read("s", 0),)),),
        (Identity("numbers", (1,), (), ((first, second),), read("s", 0)),),
    )
    return Example(circuit, {}, {"y": np.array([3])}, {"s": np.array([30])})


def public_alone() -> Example:
    """Nothing is committed: y = x."""
    same = Expr((Read("x", along(0)), Read("y", along(0), -1)))
    sources = (Source("x", (4,), "public"), Source("y", (4,), "public"))
    x = np.arange(1, 5)
    return Example(Circuit(sources, (), (), (Identity("same", (4,), (), (), same),)), {}, {"x": x, "y": x}, {})


def tensors(arrays: Any) -> dict[str, Tensor]:
    return {name: Tensor.of(array) for name, array in arrays.items()}


def told(example: Example, root: bytes | None = None) -> Told:
    return Told(example.circuit, tensors(example.public), tensors(example.weights), root)


def used(example: Example, **more: Any) -> Used:
    """The example's own numbers."""
    circuit = more.get("circuit") or example.circuit
    counts = tensors(count(circuit, {**example.values, **circuit.constants}))
    values = tensors({**circuit.constants, **example.public, **example.weights})
    return Used(values, {**tensors(example.witness), **counts}, **more)


def count(circuit: Circuit, values: Arrays) -> dict[str, IntArray]:
    """How often each row is looked up; keys that are no row do not count."""
    found = {}
    for table in circuit.tables:
        columns = [[entry % P for entry in column.tolist()] for column in table.columns]
        rows = {row: i for i, row in enumerate(zip(*columns, strict=True))}
        counts = np.zeros(len(table.columns[0]), np.int64)
        for lookup in circuit.lookups:
            for index in np.ndindex(lookup.space) if lookup.table == table.name else ():
                key = tuple(value_at(key, index, values) % P for key in lookup.keys)
                if key in rows:
                    counts[rows[key]] += 1
        found[counts_name(table.name)] = counts
    return found if circuit.lookups else {}


def changed(example: Example, source: str, index: tuple[int, ...], change: int) -> Example:
    """One number changed, of whatever kind."""

    def group(arrays: Arrays) -> Arrays:
        if source not in arrays:
            return arrays
        other = arrays[source].copy()
        other[index] += change
        return {**arrays, source: other}

    return Example(example.circuit, group(example.weights), group(example.public), group(example.witness))
