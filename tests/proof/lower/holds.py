"""Whether columns satisfy a circuit, in numpy with Python's integers where they could wrap: quick enough for LeNet."""

from __future__ import annotations

import numpy as np

from shoal.proof.circuit import Circuit, Expr
from shoal.proof.graph.exact import read
from shoal.proof.lower.lower import Assignment, Lowered

P = (1 << 64) - (1 << 32) + 1


def values_of(lowered: Lowered, assignment: Assignment) -> dict[str, np.ndarray]:
    known = {**lowered.weights, **assignment.public, **assignment.witness, **lowered.circuit.constants}
    for source in lowered.circuit.sources:
        assert known[source.name].shape == source.shape, source
    return known


def faults(circuit: Circuit, values: dict[str, np.ndarray]) -> list[str]:
    """Labels of the constraints that do not hold."""
    rows = {
        table.name: set(zip(*(column.tolist() for column in table.columns), strict=True)) for table in circuit.tables
    }
    broken = []
    for lookup in circuit.lookups:
        keys = [evaluate(key, lookup.space, values).reshape(-1).tolist() for key in lookup.keys]
        if not set(zip(*keys, strict=True)) <= rows[lookup.table]:
            broken.append(lookup.label)
    for identity in circuit.identities:
        lengths = identity.space + identity.summed
        total = evaluate(identity.out, identity.space, values).astype(object) * -1
        for a, b in identity.pairs:
            left, right = (evaluate(e, lengths, values).astype(np.float64) for e in (a, b))
            depth = int(np.prod(identity.summed))
            bound = np.abs(left).max() * np.abs(right).max() * depth
            kind = np.int64 if bound < 2**62 else object
            left, right = (evaluate(e, lengths, values).astype(kind) for e in (a, b))
            total = total + (left * right).reshape(*identity.space, depth).sum(axis=-1)
        if any(int(entry) % P for entry in np.asarray(total, object).reshape(-1)):
            broken.append(identity.label)
    return broken


def evaluate(expr: Expr, lengths: tuple[int, ...], values: dict[str, np.ndarray]) -> np.ndarray:
    total = np.full(lengths, expr.constant, np.int64)
    for term in expr.reads:
        total = total + term.coefficient * read(values[term.source], term.indices, lengths, values).astype(np.int64)
    return total
