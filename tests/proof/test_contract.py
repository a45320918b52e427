"""Sums with weights of the extension field, against Python's integers, at the edges of every width."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.proof import field, native, scalars
from shoal.proof.claims import Term, value_of
from shoal.proof.scalars import P

HALF = (P - 1) // 2
EDGES = [0, 1, P - 1, HALF, HALF + 1, HALF - 1, HALF + 2, 2**31, 2**31 - 1, 2**32 - 1, 2**32, 2**63, 2**63 - 1,
         P - 2**31, P - 2**31 - 1, 2**63 - 2**31]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (3, 20_000), (20_000, 3)])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_a_matrix_between_two_vectors(
    dtype: type[np.signedinteger], shape: tuple[int, int], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    rng, info = np.random.default_rng(1), np.iinfo(dtype)
    matrix = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    matrix[0] = info.min
    vectors = []
    for length in shape:
        vector = rng.integers(0, P, (length, 2), np.uint64)
        vector[: len(EDGES), 0], vector[: len(EDGES), 1] = EDGES[:length], EDGES[::-1][:length]
        vectors.append(vector)
    expected = scalars.ZERO
    for weights, factor in zip(matrix.astype(object), field.elements(vectors[0]), strict=True):
        sums = [int((weights * vectors[1][:, k].astype(object)).sum()) for k in (0, 1)]
        expected = scalars.add(expected, scalars.mul(factor, (sums[0] % P, sums[1] % P)))
    assert value_of(Term("w", (3, 0), tuple(vectors)), matrix) == scalars.scale(expected, 3)


@pytest.mark.parametrize("shape", [(200_000,), (1, 200_000), (100_000, 2)])
def test_many_of_the_greatest_numbers_do_not_wrap(shape: tuple[int, ...]) -> None:
    matrix = np.full(shape, -(2**15), np.int16)
    vectors = tuple(np.full((length, 2), [HALF, 0], np.uint64) for length in shape)
    power = HALF ** len(shape)
    assert value_of(Term("w", scalars.ONE, vectors), matrix) == (-(2**15) * 200_000 * power % P, 0)
