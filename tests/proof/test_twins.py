"""The C loops and their plain twins agree to the bit, at ragged sizes and at the ends of the field."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.proof import field, fractions, native, products
from shoal.proof.contract import contract
from shoal.proof.fractions import Layer
from shoal.proof.multilinear import eq_prefix, eq_table
from shoal.proof.opening import _add_outer
from shoal.proof.scalars import ONE, Element, P

EDGES = np.array([0, 1, P - 1, P - 2, 2**32 - 1, 2**32, P // 2, P // 2 + 1], np.uint64)
R: Element = (P - 1, 2**32 - 1)

needs_library = pytest.mark.usefixtures("has_library")


@pytest.fixture
def has_library() -> None:
    assert native.library() is not None, "expected a C compiler for these tests"


def random(*shape: int, seed: int = 0) -> field.Base:
    """Elements, one in four of them at an edge."""
    source = np.random.default_rng([seed, *shape])
    found = source.integers(0, P, shape, np.uint64)
    return np.where(source.integers(0, 4, shape) == 0, source.choice(EDGES, shape), found)


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "function", lambda name, arguments: None)


@needs_library
@pytest.mark.parametrize(("rows", "half", "rest", "period"), [(5, 4, 1, 1), (4, 4, 6, 3), (7, 4, 9, 1), (40, 32, 1, 1)])
@pytest.mark.parametrize("is_base", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_round_sums(
    monkeypatch: pytest.MonkeyPatch, rows: int, half: int, rest: int, period: int, is_base: bool, weighed: bool
) -> None:
    a = random(rows, rest) if is_base else random(rows, rest, 2)
    b, outer = random(rows, rest, 2, seed=1), random(half, 2, seed=2) if weighed else None
    inner = random(period, 2, seed=3) if period > 1 else None
    found = products.round_sums(a, b, half, outer, inner)
    plainly(monkeypatch)
    assert found == products.round_sums(a, b, half, outer, inner)


@needs_library
@pytest.mark.parametrize(("length", "half"), [(1, 4), (4, 4), (5, 4), (8, 4), (100, 64), (63, 64), (128, 64)])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_folds(monkeypatch: pytest.MonkeyPatch, length: int, half: int, shape: tuple[int, ...]) -> None:
    values, missing = random(length, *shape), (7, P - 1)
    found = products.short_fold(values.copy(), half, R, missing)
    plainly(monkeypatch)
    assert np.array_equal(found, products.short_fold(values, half, R, missing))


@needs_library
@pytest.mark.parametrize(("count", "levels"), [(2, 1), (3, 2), (5, 3), (8, 3), (70, 7), (100, 7), (128, 7)])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_fractions(monkeypatch: pytest.MonkeyPatch, count: int, levels: int, shape: tuple[int, ...]) -> None:
    half = 1 << (levels - 1)
    leaves = Layer(random(count, *shape), random(count, 2, seed=1))

    def run() -> list[object]:
        layer = Layer(leaves.p.copy(), leaves.q.copy())
        above = fractions.layer_above(layer, half)
        found: list[object] = [above.p.tolist(), above.q.tolist()]
        state = fractions.halves(layer, half, R)
        for left in range(levels - 1, 0, -1):
            found.append(state.sums(1 << (left - 1), random(left - 1, 2, seed=2)))
            state.fold(1 << (left - 1), R)
        return [*found, state.last()]

    found = run()
    plainly(monkeypatch)
    assert found == run()


@needs_library
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.uint64, None])
@pytest.mark.parametrize("shape", [(1, 5, 1), (3, 17, 1), (2, 9, 300), (2, 3, 4), (1, 20000, 6)])
def test_contractions(monkeypatch: pytest.MonkeyPatch, kind: type | None, shape: tuple[int, ...]) -> None:
    weights = random(shape[1], 2 if shape[1] < 100 else 1, 2, seed=1)
    if kind is None or kind is np.uint64:
        values = random(*shape, *(() if kind else (2,)))
    else:
        limits = np.iinfo(kind)
        values = np.random.default_rng(0).choice(np.array([limits.min, limits.max, -1, 0, 5], kind), shape)
    found = contract(values, weights, is_ext=kind is None)
    plainly(monkeypatch)
    assert np.array_equal(found, contract(values, weights, is_ext=kind is None))


@needs_library
def test_tables_of_eq_and_outer_products(monkeypatch: pytest.MonkeyPatch) -> None:
    point, rows, last = random(9, 2), random(5, 2), random(19, 2)
    line = random(95, 2, seed=4)
    tables, sums = [eq_table(point), *(eq_prefix(point, n) for n in (1, 2, 255, 257, 300, 511))], line.copy()
    _add_outer(sums, rows, last)
    plainly(monkeypatch)
    assert all(np.array_equal(a, eq_prefix(point, len(a))) for a in tables)
    _add_outer(line, rows, last)
    assert np.array_equal(sums, line)


def test_a_fold_is_a_line_through_both_halves() -> None:
    values = field.lift(np.arange(6, dtype=np.uint64))
    assert products.short_fold(values, 4, ONE, (9, 0))[:, 0].tolist() == [4, 5, 9, 9]
