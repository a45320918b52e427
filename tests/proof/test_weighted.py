"""A matrix between two vectors, against Python's integers, at the edges of every width."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.proof import field, native, scalars, weighted
from shoal.proof.scalars import P

HALF = (P - 1) // 2
EDGES = [0, 1, P - 1, HALF, HALF + 1, HALF - 1, HALF + 2, 2**31, 2**31 - 1, 2**32 - 1, 2**32, 2**63, 2**63 - 1,
         P - 2**31, P - 2**31 - 1, 2**63 - 2**31]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (3, 70_000)])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_product(
    dtype: type[np.signedinteger], shape: tuple[int, int], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    rng, info = np.random.default_rng(1), np.iinfo(dtype)
    matrix = rng.integers(info.min, info.max + 1, shape, dtype)
    matrix[0] = info.min
    u, v = rng.integers(0, P, (shape[0], 2), np.uint64), rng.integers(0, P, (shape[1], 2), np.uint64)
    v[: len(EDGES), 0], v[: len(EDGES), 1] = EDGES[: len(v)], EDGES[::-1][: len(v)]
    expected = scalars.ZERO
    for weights, factor in zip(matrix.astype(object), field.elements(u), strict=True):
        sums = [int((weights * v[:, k].astype(object)).sum()) for k in (0, 1)]
        expected = scalars.add(expected, scalars.mul(factor, (sums[0] % P, sums[1] % P)))
    assert weighted.product(matrix, u, v) == expected


def test_a_long_row_of_the_greatest_numbers_does_not_wrap() -> None:
    matrix = np.full((1, 200_000), -(2**15), np.int16)
    one, v = field.ext([scalars.ONE]), np.full((200_000, 2), HALF, np.uint64)
    expected = -(2**15) * 200_000 * HALF % P
    assert weighted.product(matrix, one, v) == (expected, expected)


def test_vectors_must_fit() -> None:
    with pytest.raises(ValueError, match="3 x 4 matrix"):
        weighted.product(np.zeros((3, 4), np.int8), np.zeros((4, 2), np.uint64), np.zeros((4, 2), np.uint64))
