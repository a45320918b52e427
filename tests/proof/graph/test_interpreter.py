"""Operators against their definitions in Python integers, and ranges that are held."""

from __future__ import annotations

from math import isqrt

import numpy as np
import pytest

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.proof.graph import attention, tables
from shoal.proof.graph.attention import Norm, SoftmaxScale
from shoal.proof.graph.builder import Builder, identity
from shoal.proof.graph.exact import OutOfRange
from shoal.proof.graph.interpreter import run
from shoal.proof.graph.ir import InverseRoot, Requantize
from shoal.proof.graph.ranges import Range


def test_softmax_takes_the_smallest_logarithm_that_will_do() -> None:
    b = Builder()
    x = b.input("x", (5, 7), Range(-4000, 4000), fraction=12)
    attention.softmax(b, "p", x, SoftmaxScale(8, 10, 1 << 12))
    graph = b.finish(("p",))
    entries = np.random.default_rng(0).integers(-4000, 4001, (5, 7))
    table = tables.exponentials(8, 10, 1 << 12)
    found = run(graph, {"x": entries})["p"]
    for row, shares in zip(entries, found, strict=True):
        q = [(int(entry) + 8) >> 4 for entry in row]
        c = next(
            c for c in range(min(q), 1 << 12) if all(c - e >= 0 for e in q) and sum(table[c - e + 1] for e in q) <= 1024
        )
        assert [table[c - e + 1] for e in q] == shares.tolist()
        assert 1024 * 0.98 < shares.sum() <= 1024
    exact = np.exp(entries / 4096) / np.exp(entries / 4096).sum(axis=1, keepdims=True)
    assert np.abs(found / 1024 - exact).max() < 0.006


def test_reciprocal_roots_have_the_mantissas_precision_at_every_size() -> None:
    b = Builder()
    x = b.input("x", (40,), Range(1 << 10, 1 << 40))
    b.inverse_root("y", x, InverseRoot("roots", 12, 14), tables.inverse_roots(12))
    values = np.array([(1 << 10) + 7 * 3**place for place in range(24)] + [(1 << 40) - 3**place for place in range(16)])
    found = run(b.finish(("y",)), {"x": values})["y"]
    for value, root in zip(values.tolist(), found.tolist(), strict=True):
        exact = isqrt((1 << (2 * (18 + 14))) // value)
        assert abs(root - exact) <= exact >> 9


def test_norms_are_norms() -> None:
    b = Builder()
    x = b.input("x", (3, 32), Range(-3000, 3000), fraction=8)
    for centred in (False, True):
        attention.normalise(b, f"unit {centred}", x, Norm(1e-5, centred, 14, 14))
    entries = np.random.default_rng(1).integers(-3000, 3000, (3, 32))
    values = run(b.finish(("unit True",)), {"x": entries})
    for centred in (False, True):
        moved = entries - entries.mean(axis=1, keepdims=True) * centred
        exact = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        assert np.abs(values[f"unit {centred}"] / 2**14 - exact).max() < 4e-4


def test_a_value_beyond_its_range_names_the_node() -> None:
    b = Builder()
    x = b.input("x", (2,), Range(-500, 500))
    b.requantize("small", x, Requantize(1, -100, 100))
    graph = b.finish(("small",))
    assert run(graph, {"x": np.array([199, -199])})["small"].tolist() == [100, -99]
    with pytest.raises(OutOfRange, match=r"node 'small' \(Requantize\): expected values in -100 .. 100, found"):
        run(graph, {"x": np.array([203, 0])})


def test_inputs_are_checked() -> None:
    b = Builder()
    b.affine("y", [(2, b.input("x", (2,), Range(0, 9)), identity(1))], (2,))
    graph = b.finish(("y",))
    with pytest.raises(InvalidRequest, match="expected an input 'x', found none"):
        run(graph, {})
    with pytest.raises(InvalidRequest, match="shape"):
        run(graph, {"x": np.array([1])})
    with pytest.raises(InvalidRequest, match=r"expected values in 0 \.\. 9"):
        run(graph, {"x": np.array([1, 10])})
    with pytest.raises(InvalidRequest, match="integers"):
        run(graph, {"x": np.array([1.0, 2.0])})


def test_names_and_axes_are_checked_when_built() -> None:
    b = Builder()
    x = b.input("x", (2, 3), Range(0, 9))
    with pytest.raises(BadConfig, match="a new name"):
        b.input("x", (2,), Range(0, 9))
    with pytest.raises(BadConfig, match="one index for each axis"):
        b.affine("y", [(1, x, identity(1))], (2,))
    with pytest.raises(BadConfig, match="as many entries"):
        b.reshape("z", x, (4,))
