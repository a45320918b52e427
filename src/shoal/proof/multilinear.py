"""Multilinear extensions of vectors. The first coordinate of a point binds the most significant bit of the index."""

from __future__ import annotations

import numpy as np

from shoal.proof import field, native
from shoal.proof.field import Base, Ext
from shoal.proof.scalars import ONE, Element, add, mul, sub

IN_ONE_CALL = 1 << 16
"""Entries of a table of eq that one thread makes as quickly as several do."""


def eq_table(point: Ext) -> Ext:
    """eq(point, i) for all 2^n indices i: (n, 2) -> (2^n, 2)."""
    return eq_prefix(point, 1 << len(point))


def eq_prefix(point: Ext, length: int) -> Ext:
    """The first `length` entries of `eq_table`, without the cost of the others: (length, 2)."""
    bits = len(point)
    if not 0 < length <= 1 << bits:
        raise ValueError(f"expected a length of 1 to {1 << bits}, found {length}")
    call = native.function("proof_eq_prefix", "pqqp")
    if call is not None and length <= IN_ONE_CALL:
        out, point = np.empty((length, 2), np.uint64), np.ascontiguousarray(point)
        call(native.pointer(point), bits, length, native.pointer(out))
        return out
    table = field.ext([ONE])
    for done, r in enumerate(point, 1):
        table = _eq_step(table, r)[: -(-length >> (bits - done))]
    return np.ascontiguousarray(table)


def eq(point: list[Element], other: list[Element]) -> Element:
    """eq(point, other) = product of x y + (1 - x)(1 - y)."""
    result = ONE
    for x, y in zip(point, other, strict=True):
        both = mul(x, y)
        result = mul(result, add(sub(ONE, add(x, y)), add(both, both)))
    return result


def fold(values: Base | Ext, r: Element) -> Ext:
    """Binds the first variable: f(i) + r (f(i + half) - f(i)). (2 m,) or (2 m, 2) -> (m, 2)."""
    half = len(values) // 2
    call = native.function("proof_fold", "ipqpp")
    if call is None:
        low, high = values[:half], values[half:]
        wide = field.lift(low) if values.ndim == 1 else low
        slope = field.sub(high, low)
        return field.add(wide, field.ext_mul(field.lift(slope) if values.ndim == 1 else slope, field.ext([r])))
    values, out, at = np.ascontiguousarray(values), np.empty((half, 2), np.uint64), field.ext([r])
    call(int(values.ndim == 1), native.pointer(values), half, native.pointer(at), native.pointer(out))
    return out


def evaluate(values: Base | Ext, point: Ext) -> Element:
    """The extension of 2^n values at a point (n, 2). Memory beside the values: about two tables of 2^(n/2)."""
    if len(values) != 1 << len(point):
        raise ValueError(f"expected {1 << len(point)} values for {len(point)} coordinates, found {len(values)}")
    high, low = eq_table(point[: len(point) // 2]), eq_table(point[len(point) // 2 :])
    rows = values.reshape(len(high), len(low), *values.shape[1:])
    dot = field.dot_base if values.ndim == 1 else field.dot_ext
    return field.dot_ext(field.ext(dot(row, low) for row in rows), high)


def _eq_step(table: Ext, r: Ext) -> Ext:
    call = native.function("proof_eq_step", "pqpp")
    if call is None:
        high = field.ext_mul(table, r[None])
        return np.stack([field.sub(table, high), high], axis=1).reshape(-1, 2)
    out, r = np.empty((2 * len(table), 2), np.uint64), np.ascontiguousarray(r)
    call(native.pointer(table), len(table), native.pointer(r), native.pointer(out))
    return out
