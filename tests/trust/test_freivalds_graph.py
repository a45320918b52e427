"""A run of an integer graph, checked without running its contractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from shoal.core.errors import InvalidRequest
from shoal.proof.graph.builder import Builder, Sum, axis
from shoal.proof.graph.interpreter import run
from shoal.proof.graph.ir import Graph, Ints, Requantize
from shoal.proof.graph.ranges import Range
from shoal.trust.freivalds import bits
from shoal.trust.freivalds_graph import MAX_USES, GraphCheck, Secrets, claims

ROWS, INNER, HIDDEN, CLASSES = 6, 8, 12, 5


def network() -> Graph:
    """Two dense layers, and a product of activations with activations, batched as attention's are."""
    random = np.random.default_rng(0)
    b = Builder()
    x = b.input("x", (ROWS, INNER), Range(-128, 127))
    w1 = b.weight("w1", random.integers(-128, 128, (INNER, HIDDEN)))
    w2 = b.weight("w2", random.integers(-128, 128, (HIDDEN, CLASSES)))
    h = b.contract("first", x, w1, Sum((ROWS, HIDDEN), (INNER,), (axis(0), axis(2)), (axis(2), axis(1))))
    h = b.requantize("relu", h, Requantize(7, -2000, 2000, relu=True))
    out = b.contract("second", h, w2, Sum((ROWS, CLASSES), (HIDDEN,), (axis(0), axis(2)), (axis(2), axis(1))))
    # scores[head, i, j] = sum over d of h[i, 4 head + d] h[j, 4 head + d], for 3 heads of 4 columns
    column = replace(axis(0, 4), terms=((0, 4), (3, 1)))
    scores = b.contract("scores", h, h, Sum((3, ROWS, ROWS), (4,), (axis(1), column), (axis(2), column)))
    return b.finish((out, scores))


GRAPH = network()
INPUTS: Mapping[str, Ints] = {"x": np.random.default_rng(1).integers(-128, 128, (ROWS, INNER))}
VALUES = run(GRAPH, INPUTS)
CLAIMS = claims(GRAPH, VALUES)
OUTPUTS = {name: VALUES[name] for name in GRAPH.outputs}


def changed(values: Mapping[str, Ints], name: str, at: tuple[int, ...], by: int = 1) -> dict[str, Ints]:
    new = {key: value.copy() for key, value in values.items()}
    new[name][at] += by
    return new


def test_a_true_run_holds_with_its_bound() -> None:
    walk = GraphCheck(GRAPH).walk(INPUTS, CLAIMS, OUTPUTS)
    assert walk.problem is None
    assert walk.num_checked == 2 + 3
    assert walk.num_recomputed == 1
    assert bits(walk.bound) == pytest.approx(62 - np.log2(5), abs=0.01)
    assert set(CLAIMS) == {"first", "second", "scores"}


@pytest.mark.parametrize("name", ["first", "second", "scores"])
def test_any_false_number_is_found_where_it_is(name: str) -> None:
    for at in np.ndindex(CLAIMS[name].shape):
        walk = GraphCheck(GRAPH).walk(INPUTS, changed(CLAIMS, name, at), OUTPUTS)
        assert walk.problem is not None
        assert walk.problem.startswith(name)


def test_a_lie_that_is_consistent_from_there_on_is_found_at_its_beginning() -> None:
    """Other weights, run honestly: every later number follows from the first false one."""
    other = replace(GRAPH, arrays={**GRAPH.arrays, "w1": GRAPH.arrays["w1"][::-1].copy()})
    values = run(other, INPUTS)
    walk = GraphCheck(GRAPH).walk(INPUTS, claims(other, values), {name: values[name] for name in GRAPH.outputs})
    assert walk.problem == "first: the claimed product is not the product"


def test_a_true_run_with_another_result_fails() -> None:
    walk = GraphCheck(GRAPH).walk(INPUTS, CLAIMS, changed(OUTPUTS, "second", (0, 0)))
    assert walk.problem == "output 'second' is not what follows from the claims"
    assert "output 'scores'" in str(GraphCheck(GRAPH).walk(INPUTS, CLAIMS, {"second": OUTPUTS["second"]}).problem)


def test_claims_of_another_form_are_found() -> None:
    first = CLAIMS["first"]
    for bad in (None, first[:-1], first.astype(np.float64), first.astype(np.uint64), first + 2**40):
        claimed = {name: value for name, value in CLAIMS.items() if name != "first" or bad is not None}
        if bad is not None:
            claimed["first"] = bad
        problem = GraphCheck(GRAPH).walk(INPUTS, claimed, OUTPUTS).problem
        assert problem is not None
        assert problem.startswith("first: expected")
    with pytest.raises(InvalidRequest, match="expected an input"):
        GraphCheck(GRAPH).walk({}, CLAIMS, OUTPUTS)


def test_claims_that_leave_the_range_of_what_follows_are_found() -> None:
    """Within the contraction's own range and consistent with it, but rounding them leaves the declared range."""
    narrow = replace(GRAPH.nodes[1], operator=Requantize(7, -1, 1, relu=True))
    graph = replace(GRAPH, nodes=(GRAPH.nodes[0], narrow, *GRAPH.nodes[2:]))
    problem = GraphCheck(graph).walk(INPUTS, CLAIMS, OUTPUTS).problem
    assert problem is not None
    assert problem.startswith("relu: cannot be computed")


def test_prepared_secrets_give_the_same_verdicts_and_are_dropped_after_a_failure_or_many_uses() -> None:
    secrets = Secrets()
    check = GraphCheck(GRAPH, secrets=secrets)
    assert check.walk(INPUTS, CLAIMS, OUTPUTS).holds
    kept = dict(secrets._drawn)
    walk = check.walk(INPUTS, CLAIMS, OUTPUTS)
    assert walk.holds
    assert secrets._drawn == kept
    assert {name for name, _ in kept} == {"first", "second"}
    assert bits(walk.bound) == pytest.approx(62 - np.log2(5 * 2), abs=0.01)
    assert not check.walk(INPUTS, changed(CLAIMS, "first", (0, 0)), OUTPUTS).holds
    assert (secrets.uses, secrets._drawn) == (0, {})
    assert check.walk(INPUTS, CLAIMS, OUTPUTS).holds
    assert secrets._drawn["first", 2**31 - 1].r is not kept["first", 2**31 - 1].r
    secrets.uses = MAX_USES - 1
    assert check.walk(INPUTS, CLAIMS, OUTPUTS).holds
    assert secrets._drawn == {}
