"""Reed-Solomon codewords over Goldilocks: a row of C coefficients as its polynomial's values at `blowup * C` points.

The points are all powers of a root of unity w of that order. Coset m (0 <= m < blowup) holds the values at
w^(reverse(m) + blowup * i), i in bit-reversed order; `positions` says which position is which power. The order is the
one the transform leaves; a codeword is a codeword in any order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from shoal.proof import native, twin
from shoal.proof.field import Base
from shoal.proof.scalars import P

GENERATOR = 7
"""Of the multiplicative group modulo p, whose order is divisible by 2^32."""
SMALLEST = 16
"""Columns below which a row is not worth a transform."""


def root_of_unity(order: int) -> int:
    """An element of this order, a power of two up to 2^32."""
    return pow(GENERATOR, (P - 1) // order, P)


def encode(rows: Base, blowup: int) -> Base:
    """Codewords of rows of coefficients, (n, C) -> (n, blowup * C). C and blowup are powers of two."""
    count, columns = rows.shape
    if columns < SMALLEST or columns.bit_count() != 1 or blowup.bit_count() != 1:
        raise ValueError(
            f"expected powers of two, {SMALLEST} columns or more, found {columns} columns, blowup {blowup}"
        )
    shifts, roots = _shifts(columns, blowup), _roots(columns)
    call = native.function("proof_encode", "pqqqppp")
    if call is None:
        return _transform(twin.mul(rows[:, None, :], shifts), roots).reshape(count, -1)
    rows, out = np.ascontiguousarray(rows), np.empty((count, blowup * columns), np.uint64)
    parts = (native.pointer(shifts), native.pointer(roots), native.pointer(out))
    call(native.pointer(rows), count, columns, blowup, *parts)
    return out


def positions(columns: int, blowup: int) -> npt.NDArray[np.int64]:
    """Which power of w a codeword's positions belong to."""
    return (_reversed(blowup)[:, None] + blowup * _reversed(columns)).reshape(-1)


@lru_cache(maxsize=8)
def _shifts(columns: int, blowup: int) -> Base:
    """w^(reverse(m) * j), (blowup, columns)."""
    w = root_of_unity(columns * blowup)
    return np.stack([_powers(pow(w, exponent, P), columns) for exponent in _reversed(blowup).tolist()])


@lru_cache(maxsize=8)
def _roots(columns: int) -> Base:
    """Each layer's powers in a row: entry h + j is (root of order 2 h)^j, for h = 1, 2, 4 .. columns / 2 and j < h."""
    halves = [1 << layer for layer in range(columns.bit_length() - 1)]
    return np.concatenate([np.zeros(1, np.uint64), *(_powers(root_of_unity(2 * half), half) for half in halves)])


def _powers(base: int, count: int) -> Base:
    """base^0 .. base^(count - 1), by doubling."""
    found = np.ones(1, np.uint64)
    while len(found) < count:
        found = np.concatenate([found, twin.mul(found, np.array([pow(base, len(found), P)], np.uint64))])
    return found[:count]


def _reversed(count: int) -> npt.NDArray[np.int64]:
    """The numbers below a power of two, their bits reversed."""
    found = np.zeros(1, np.int64)
    while len(found) < count:
        found = np.concatenate([2 * found, 2 * found + 1])
    return found


def _transform(values: Base, roots: Base) -> Base:
    """The transform of the last axis in numpy, decimation in frequency: bit-reversed values."""
    half = values.shape[-1] // 2
    while half:
        pairs = values.reshape(*values.shape[:2], -1, 2, half)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        after = twin.mul(twin.sub(low, high), roots[half : 2 * half])
        values = np.stack([twin.add(low, high), after], axis=-2).reshape(values.shape)
        half //= 2
    return values
