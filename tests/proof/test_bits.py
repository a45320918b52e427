"""The count of bits: every term of the real shape, none forgotten, queries as many as the goal asks for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from shoal.core.errors import InvalidRequest
from shoal.proof import bits
from shoal.proof.circuit import Circuit, Lookup
from shoal.proof.fakes import all_examples, dense, read, rounds_apart
from shoal.proof.parameters import FIELD_BITS
from shoal.proof.plan import GOAL_BITS, make_plan


def degree(bits_of_term: float) -> float:
    """What a term of FIELD_BITS - log2(degree) was made from."""
    return math.exp2(FIELD_BITS - bits_of_term)


def test_the_terms_of_a_small_circuit() -> None:
    """dense: 36 lookups, tables of 16 and 42 rows: 94 leaves, 7 levels; one product of 5 over a space of 3 x 6."""
    example = dense()
    params = make_plan(example.circuit, commits_weights=False).witness
    assert params is not None
    found = bits.errors(example.circuit, [params.params])
    degrees = {name: degree(proven) for name, proven, _ in found.terms if not name.startswith("commitment")}
    wanted = {
        "lookups: sum of fractions": 94,
        "lookups: layers": sum(2 * k + 2 for k in range(7)),
        "identities: point and weight": 2 + 3,
        "identities: sumcheck": 3 * 3,
        "openings: combined claims": 4,
        "openings: sumcheck": 2 * params.params.bits,
    }
    assert degrees == pytest.approx(wanted)
    assert [name for name, _, _ in found.terms if name.startswith("commitment")] == [
        "commitment: combination of rows",
        "commitment: queries",
    ]


def test_errors_add_up() -> None:
    found = bits.Errors((("a", 101.0, 110.0), ("b", 101.0, 110.0), ("c", math.inf, math.inf)))
    assert found.proven == pytest.approx(100.0)
    assert found.conjectured == pytest.approx(109.0)
    assert bits.Errors(()).proven == math.inf


@pytest.mark.parametrize("name", all_examples())
@pytest.mark.parametrize("committed", [False, True])
def test_every_plan_reaches_the_goal_and_not_much_more(name: str, committed: bool) -> None:
    plan = make_plan(all_examples()[name].circuit, committed)
    assert GOAL_BITS <= plan.errors.proven <= GOAL_BITS + 2
    assert plan.errors.conjectured > plan.errors.proven


def test_identities_count() -> None:
    """rounds apart: four identities, spaces of no axes, 6 rounds."""
    found = {name: degree(proven) for name, proven, _ in bits.errors(rounds_apart().circuit, []).terms}
    assert found["identities: point and weight"] == pytest.approx(3)
    assert found["identities: sumcheck"] == pytest.approx(3 * 7)
    assert found["openings: combined claims"] == pytest.approx(2 + 2 * 4)


def test_a_circuit_too_large_for_the_goal_is_refused() -> None:
    example = dense()
    lookup = Lookup("many", (1 << 28, 1), "rest", (read("r", 0, 1),))
    circuit: Circuit = replace(example.circuit, lookups=(lookup,))
    with pytest.raises(InvalidRequest, match="expected at least 100 proven bits"):
        make_plan(circuit, commits_weights=False)
