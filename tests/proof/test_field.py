"""C, numpy and Python's integers agree on the field, at its edges and at random."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.proof import field, multilinear, native, scalars
from shoal.proof.scalars import P

EDGES = [0, 1, 2, 6, 7, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1, 2**33 - 1, 2**63 - 1, 2**63, 2**63 + 1,
         P - 2**32, P - 2**32 + 1, P - 2**32 - 1, P // 2, P // 2 + 1, P - 7, P - 2, P - 1]  # fmt: skip


@pytest.fixture(params=["c", "numpy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    else:
        assert native.library() is not None
    return str(request.param)


def numbers(count: int, seed: int) -> list[int]:
    """All edges and random numbers below p."""
    drawn = np.random.default_rng(seed).integers(0, P, count, np.uint64).tolist()
    return [*EDGES, *drawn][:count]


def pairs() -> tuple[list[int], list[int]]:
    values = numbers(64, 1)
    return [a for a in values for _ in values], [b for _ in values for b in values]


def array(values: list[int]) -> field.Base:
    return np.array(values, np.uint64)


def test_base_operations(backend: str) -> None:
    a, b = pairs()
    for mine, plain in (
        (field.add, lambda x, y: (x + y) % P),
        (field.sub, lambda x, y: (x - y) % P),
        (field.mul, lambda x, y: x * y % P),
    ):
        assert mine(array(a), array(b)).tolist() == [plain(x, y) for x, y in zip(a, b, strict=True)]
    assert field.neg(array(a)).tolist() == [-x % P for x in a]


def test_extension_operations(backend: str) -> None:
    a, b = pairs()
    u, v = list(zip(a, b, strict=True)), list(zip(b[7:] + b[:7], a[11:] + a[:11], strict=True))
    for mine, plain in (
        (field.ext_add, scalars.add),
        (field.ext_sub, scalars.sub),
        (field.ext_mul, scalars.mul),
    ):
        assert field.elements(mine(field.ext(u), field.ext(v))) == [plain(x, y) for x, y in zip(u, v, strict=True)]
    assert field.elements(field.ext_scale(field.ext(u), array(a))) == [
        scalars.scale(x, y) for x, y in zip(u, a, strict=True)
    ]


def test_one_element_meets_many(backend: str) -> None:
    many, one = array(numbers(50, 2)), array([P - 1])
    assert field.mul(many, one).tolist() == [-x % P for x in many.tolist()]
    u, v = field.ext(zip(numbers(50, 3), numbers(50, 4), strict=True)), field.ext([(P - 1, P - 1)])
    assert field.elements(field.ext_mul(u, v)) == [scalars.mul(x, (P - 1, P - 1)) for x in field.elements(u)]
    grid = field.mul(many.reshape(5, 10), many[:10])
    assert grid.shape == (5, 10)
    assert int(grid[4, 9]) == int(many[49]) * int(many[9]) % P


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (17, 8), (0, 3), (200, 300)])
def test_outer_products(backend: str, n: int, m: int) -> None:
    u, v = array(numbers(2 * n, 5)).reshape(n, 2), array(numbers(2 * m, 6)).reshape(m, 2)
    grid = field.ext_outer(u, v).reshape(n, m, 2)
    assert (grid == field.ext_mul(u[:, None], v[None])).all()
    assert n == 0 or field.element(grid[-1, -1]) == scalars.mul(field.element(u[-1]), field.element(v[-1]))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_integers_come_back(backend: str, dtype: type[np.signedinteger]) -> None:
    info = np.iinfo(dtype)
    values = np.array([info.min, -1, 0, 1, info.max], dtype)
    if dtype is np.int64:  # beyond (p - 1) / 2 an integer is another one's element
        assert field.from_ints(values).tolist() == [x % P for x in values.tolist()]
        values = np.array([-(P - 1) // 2, -1, 0, 1, (P - 1) // 2], dtype)
    assert field.from_ints(values).tolist() == [x % P for x in values.tolist()]
    assert (field.to_ints(field.from_ints(values)) == values).all()


def test_unsigned_words_are_reduced(backend: str) -> None:
    values = np.array([0, P - 1, P, 2**64 - 1], np.uint64)
    assert field.from_ints(values).tolist() == [x % P for x in values.tolist()]
    assert field.is_canonical(values[:2])
    assert not field.is_canonical(values[:3])


@pytest.mark.parametrize("length", [1, 7, 16, 257, 70_001])
def test_sums_of_products(backend: str, length: int) -> None:
    a, u, v = array(numbers(length, 5)), array(numbers(2 * length, 6)).reshape(-1, 2), array(numbers(2 * length, 7))
    v = v[::-1].reshape(-1, 2)
    total = field.dot_ext(u, v)
    expected = scalars.ZERO
    for x, y in zip(field.elements(u), field.elements(v), strict=True):
        expected = scalars.add(expected, scalars.mul(x, y))
    assert total == expected
    plain = [sum(x * y for x, y in zip(a.tolist(), u[:, k].tolist(), strict=True)) % P for k in (0, 1)]
    assert field.dot_base(a, u) == tuple(plain)


def test_the_greatest_sum_does_not_wrap(backend: str) -> None:
    """2^17 times (p - 1)^2: more than 128 bits."""
    length = 1 << 17
    a = np.full(length, P - 1, np.uint64)
    assert field.dot_base(a, field.lift(a)) == (length, 0)
    assert field.dot_ext(np.full((length, 2), P - 1, np.uint64), np.full((length, 2), P - 1, np.uint64)) == (
        8 * length, 2 * length,
    )  # fmt: skip


def test_inverse_and_power() -> None:
    for u in zip(numbers(40, 8), numbers(40, 9)[::-1], strict=True):
        assert scalars.mul(u, scalars.inverse(u)) == scalars.ONE
        assert scalars.power(u, P * P - 1) == scalars.ONE
    with pytest.raises(ZeroDivisionError):
        scalars.inverse(scalars.ZERO)
    assert pow(scalars.W, (P - 1) // 2, P) == P - 1  # so x^2 = W has no root in GF(p)


def test_eq_table_and_folds(backend: str) -> None:
    rng = np.random.default_rng(10)
    point = rng.integers(0, P, (9, 2), np.uint64)
    table = multilinear.eq_table(point)
    for index in (0, 1, 255, 256, 341, 511):
        bits = [scalars.lift(index >> (8 - k) & 1) for k in range(9)]
        assert field.element(table[index]) == multilinear.eq(field.elements(point), bits)
    for length in (1, 2, 255, 257, 511, 512):
        assert (multilinear.eq_prefix(point, length) == table[:length]).all()
    base = rng.integers(0, P, 512, np.uint64)
    folded: np.ndarray = base
    for r in field.elements(point):
        folded = multilinear.fold(folded, r)
    assert field.elements(folded) == [multilinear.evaluate(base, point)] == [field.dot_base(base, table)]
    wide = rng.integers(0, P, (512, 2), np.uint64)
    assert multilinear.evaluate(wide, point) == field.dot_ext(wide, table)
    with pytest.raises(ValueError, match="expected 512 values"):
        multilinear.evaluate(base[:256], point)
