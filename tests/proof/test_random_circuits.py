"""Random small circuits: what the plain oracle says of every index, the proof says of all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.proof.circuit import Circuit, Expr, Identity, Index, IntArray, Lookup, Read, Source, Table
from shoal.proof.plain.verify import verify_plain
from shoal.proof.prover import prove
from shoal.proof.rejected import ProofRejected
from shoal.proof.satisfy import satisfies, value_at
from shoal.proof.verifier import verify

LENGTHS = st.integers(1, 5)
SMALL = st.integers(-3, 3)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A circuit whose inputs are public and whose outputs are witness."""

    circuit: Circuit
    public: dict[str, IntArray]
    witness: dict[str, IntArray]


@st.composite
def indices(draw: st.DrawFn, axes: list[int], gather: bool) -> tuple[Index, list[int]]:
    """An index by some of the axes that are still free, and the axes that are left."""
    if draw(st.integers(0, 9)) == 0:
        return Index(summed=True), axes
    used = axes[: draw(st.integers(0, min(2, len(axes))))]
    terms = tuple((axis, draw(SMALL)) for axis in used)
    name = "tokens" if gather and draw(st.integers(0, 5)) == 0 else None
    return Index(terms, draw(SMALL), gather=name), axes[len(used) :]


@st.composite
def exprs(draw: st.DrawFn, num_axes: int, public: dict[str, IntArray]) -> Expr:
    reads = []
    for _ in range(draw(st.integers(0, 2))):
        source = draw(st.sampled_from(sorted(public)))
        left, parts = draw(st.permutations(range(num_axes))), list[Index]()
        for _ in public[source].shape:
            index, left = draw(indices(list(left), gather=True))
            parts.append(index)
        reads.append(Read(source, tuple(parts), draw(SMALL)))
    return Expr(tuple(reads), draw(SMALL))


def over(expr: Expr, shape: tuple[int, ...], values: dict[str, IntArray]) -> IntArray:
    """The expression at every index of a space, by the oracle."""
    found = [value_at(expr, index, values) for index in product(*map(range, shape))]
    return np.array(found, np.int64).reshape(shape)


@st.composite
def circuits(draw: st.DrawFn) -> Numbered:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = {"x": draw(st.lists(LENGTHS, max_size=3)), "y": draw(st.lists(LENGTHS, max_size=2)), "tokens": [3]}
    public = {name: random.integers(-4, 5, shape) for name, shape in shapes.items()}
    space, summed = (tuple(draw(st.lists(LENGTHS, max_size=most))) for most in (3, 2))
    axes = len(space) + len(summed)
    pairs = tuple((draw(exprs(axes, public)), draw(exprs(axes, public))) for _ in range(draw(st.integers(0, 3))))
    totals = sum(
        (over(a, space + summed, public) * over(b, space + summed, public) for a, b in pairs), np.zeros(space + summed)
    )
    out = totals.sum(axis=tuple(range(len(space), axes)))
    keys = tuple(draw(exprs(len(space), public)) for _ in range(draw(st.integers(1, 2))))
    columns = np.stack([over(key, space, public).reshape(-1) for key in keys])
    rows = np.unique(columns, axis=1)
    whole = tuple(Index(((axis, 1),)) for axis in range(len(space)))
    circuit = Circuit(
        (*(Source(name, values.shape, "public") for name, values in public.items()), Source("out", space, "witness")),
        (Table("seen", tuple(rows)), Table("never", (np.arange(3),))),
        (Lookup("keys", space, "seen", keys),),
        (Identity("sum", space, summed, pairs, Expr((Read("out", whole),))),),
    )
    return Numbered(circuit, public, {"out": out.astype(np.int64)})


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(circuits(), st.data())
def test_random_circuits(case: Numbered, data: st.DataObject) -> None:
    assert satisfies(case.circuit, {**case.public, **case.witness}) is None
    proof = prove(case.circuit, {}, case.public, case.witness)
    assert verify(case.circuit, case.public, proof).bits_proven >= 100
    verify_plain(case.circuit, case.public, proof)
    changed = dict(case.public)
    name = data.draw(st.sampled_from(sorted(changed)))
    changed[name] = changed[name].copy()
    changed[name].flat[data.draw(st.integers(0, changed[name].size - 1))] += 1
    with pytest.raises(ProofRejected):
        verify(case.circuit, changed, proof)
    first = case.circuit.identities[0]
    other = replace(case.circuit, identities=(replace(first, out=replace(first.out, constant=1)),))
    with pytest.raises(ProofRejected):
        verify(other, case.public, proof)
