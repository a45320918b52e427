"""Whether columns satisfy a circuit, in numpy with Python's integers where they could wrap: quick enough for LeNet."""

from __future__ import annotations

import numpy as np

from shoal.proof.circuit import Circuit, Expr, Table
from shoal.proof.graph.exact import read
from shoal.proof.graph.ir import Graph
from shoal.proof.lower.lower import Assignment, Lowered, lower, public_name

P = (1 << 64) - (1 << 32) + 1


def values_of(lowered: Lowered, assignment: Assignment) -> dict[str, np.ndarray]:
    known = {**lowered.weights, **assignment.public, **assignment.witness, **lowered.circuit.constants}
    for source in lowered.circuit.sources:
        assert known[source.name].shape == source.shape, source
    return known


def faults(circuit: Circuit, values: dict[str, np.ndarray], about: str | None = None) -> list[str]:
    """Labels of the constraints that do not hold; of those that read the source `about`, if one is named."""
    tables = {table.name: table for table in circuit.tables}
    broken = []
    for lookup in circuit.lookups:
        if not _reads(lookup.keys, about):
            continue
        keys = [evaluate(key, lookup.space, values).reshape(-1).tolist() for key in lookup.keys]
        if not set(zip(*keys, strict=True)) <= _rows(tables[lookup.table]):
            broken.append(lookup.label)
    for identity in circuit.identities:
        if not _reads((identity.out, *(factor for pair in identity.pairs for factor in pair)), about):
            continue
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


def _rows(table: Table) -> set[tuple[int, ...]]:
    return set(zip(*(column.tolist() for column in table.columns), strict=True))


def _reads(exprs: tuple[Expr, ...], about: str | None) -> bool:
    return about is None or any(term.source == about for expr in exprs for term in expr.reads)


def evaluate(expr: Expr, lengths: tuple[int, ...], values: dict[str, np.ndarray]) -> np.ndarray:
    total = np.full(lengths, expr.constant, np.int64)
    for term in expr.reads:
        total = total + term.coefficient * read(values[term.source], term.indices, lengths, values).astype(np.int64)
    return total


def loose_columns(lowered: Lowered, values: dict[str, np.ndarray], seed: int = 0, tries: int = 4) -> list[str]:
    """Columns of which some entry can be changed alone and nothing notices."""
    rng = np.random.default_rng(seed)
    loose = []
    for name in lowered.fills:
        for _ in range(tries):
            place = int(rng.integers(values[name].size))
            for change in (1, -1, int(rng.integers(2, 1000))):
                forged = values[name].astype(np.int64).copy()
                forged.reshape(-1)[place] += change
                if not faults(lowered.circuit, {**values, name: forged}, name):
                    loose.append(f"{name}[{place}] {change:+}")
    return loose


def holds(graph: Graph, inputs: dict[str, np.ndarray]) -> Lowered:
    """Lowers, fills, and checks: the columns satisfy the circuit, no column can change alone, no output either."""
    lowered = lower(graph)
    values = values_of(lowered, lowered.assign(inputs))
    assert faults(lowered.circuit, values) == []
    assert loose_columns(lowered, values) == []
    for output in graph.outputs:
        name = public_name(output)
        forged = values[name].astype(np.int64).copy()
        forged.reshape(-1)[forged.size // 2] += 1
        assert faults(lowered.circuit, {**values, name: forged})
    return lowered
