"""The field in plain numpy: the slow twin of csrc, and what runs where there is no compiler."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.proof.scalars import P, W

U64 = npt.NDArray[np.uint64]
_P, _EPS, _32 = np.uint64(P), np.uint64(0xFFFF_FFFF), np.uint64(32)


def from_ints(values: npt.NDArray[np.integer]) -> U64:
    wide = values.astype(np.int64)
    return np.where(wide < 0, wide.view(np.uint64) + _P, wide.view(np.uint64))


def add(a: U64, b: U64) -> U64:
    with np.errstate(over="ignore"):
        short = _P - b
        return np.where(a < short, a + b, a - short)


def sub(a: U64, b: U64) -> U64:
    with np.errstate(over="ignore"):
        return np.where(a < b, a - b + _P, a - b)


def mul(a: U64, b: U64) -> U64:
    """The product in four of 32 x 32 bits, then 2^64 = 2^32 - 1 and 2^96 = -1 modulo p."""
    a0, a1, b0, b1 = a & _EPS, a >> _32, b & _EPS, b >> _32
    with np.errstate(over="ignore"):
        low, middle = a0 * b0, a0 * b1
        middle += low >> _32
        second = a1 * b0 + (middle & _EPS)
        high = a1 * b1 + (middle >> _32) + (second >> _32)
        return reduce((second << _32) | (low & _EPS), high)


def reduce(low: U64, high: U64) -> U64:
    """low + 2^64 high modulo p, for any 128 bits."""
    with np.errstate(over="ignore"):
        top, rest = high >> _32, high & _EPS
        t = low - top - np.where(low < top, _EPS, np.uint64(0))
        more = (rest << _32) - rest
        r = t + more
        r = r + np.where(r < more, _EPS, np.uint64(0))
        return np.where(r >= _P, r - _P, r)


def ext_mul(a: U64, b: U64) -> U64:
    a, b = np.broadcast_arrays(a, b)
    a0, a1, b0, b1 = a[..., 0], a[..., 1], b[..., 0], b[..., 1]
    return np.stack(
        [add(mul(a0, b0), mul(mul(a1, b1), np.array(W, np.uint64))), add(mul(a0, b1), mul(a1, b0))], axis=-1
    )


def total(values: U64) -> U64:
    """Sum over the first axis, which may have any length below 2^32."""
    with np.errstate(over="ignore"):
        low = (values & _EPS).sum(axis=0, dtype=np.uint64)
        high = (values >> _32).sum(axis=0, dtype=np.uint64)
    return add(reduce(low, np.zeros_like(low)), mul(reduce(high, np.zeros_like(high)), np.array(1 << 32, np.uint64)))
