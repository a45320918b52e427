"""Codewords are a polynomial's values; C and numpy agree; columns hash to the library's BLAKE3."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.crypto import merkle
from shoal.crypto.merkle import Tree
from shoal.proof import columns, native, ntt
from shoal.proof.scalars import P


@pytest.fixture(params=["c", "numpy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    return str(request.param)


def rows(count: int, width: int) -> np.ndarray:
    found = np.random.default_rng(width).integers(0, P, (count, width), np.uint64)
    found[0] = P - 1  # the greatest element everywhere
    return found


@pytest.mark.parametrize(("width", "blowup"), [(16, 2), (32, 4), (64, 1), (64, 2)])
def test_against_the_definition(backend: str, width: int, blowup: int) -> None:
    given = rows(2, width)
    w = ntt.root_of_unity(width * blowup)
    points = [pow(w, exponent, P) for exponent in ntt.positions(width, blowup).tolist()]
    assert len({*points}) == width * blowup
    expected = [[sum(c * pow(x, j, P) for j, c in enumerate(row)) % P for x in points] for row in given.tolist()]
    assert ntt.encode(given, blowup).tolist() == expected


@pytest.mark.parametrize("width", [1 << bits for bits in range(4, 14)])
def test_c_and_numpy_agree(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = rows(3, width)
    fast = [ntt.encode(given, blowup) for blowup in (1, 2, 8)]
    monkeypatch.setattr(native, "library", lambda: None)
    assert all((ntt.encode(given, k) == code).all() for k, code in zip((1, 2, 8), fast, strict=True))


def test_threads_do_not_change_anything() -> None:
    given = rows(64, 1024)
    try:
        native.set_threads(1)
        alone = ntt.encode(given, 4)
        native.set_threads(3)
        assert (ntt.encode(given, 4) == alone).all()
    finally:
        native.set_threads(native.usable_threads())


def test_roots_have_their_order() -> None:
    for order in (1, 2, 8, 1 << 20, 1 << 32):
        root = ntt.root_of_unity(order)
        assert pow(root, order, P) == 1
        assert order == 1 or pow(root, order // 2, P) == P - 1


def test_other_sizes_are_refused() -> None:
    for width, blowup in ((8, 2), (48, 2), (64, 3)):
        with pytest.raises(ValueError, match="powers of two"):
            ntt.encode(np.zeros((1, width), np.uint64), blowup)


@pytest.mark.parametrize("count", [1, 7, 8, 127, 128, 129, 256, 300, 700])
def test_columns_hash_as_the_library_does(backend: str, count: int) -> None:
    matrix = rows(count, 32)
    blocks = [matrix[start : start + columns.BLOCK_ROWS] for start in range(0, count, columns.BLOCK_ROWS)]
    found = columns.column_digests(iter(blocks), count, 32)
    assert [bytes(d) for d in found] == [merkle.leaf_digest(columns.column_bytes(column)) for column in matrix.T]
    ours, plain = columns.tree(found), Tree.of(found)
    assert len(ours.levels) == len(plain.levels)
    assert all((a == b).all() for a, b in zip(ours.levels, plain.levels, strict=True))
