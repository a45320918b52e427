"""Sums of products over a hypercube cut to a range, one variable at a time: what every sumcheck here is made of.

A table over the variables is stored as rows x rest; the current variable is the most significant bit of the row, and
rows that are missing are zero. Its C twin is csrc/iop.c.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.proof import field, native, twin
from shoal.proof.field import Base, Ext
from shoal.proof.scalars import ONE, ZERO, Element

Table = npt.NDArray[np.uint64]
"""(rows, rest) base elements or (rows, rest, 2) extension elements."""

_ONES = field.ext([ONE])


def round_sums(
    a: Table, b: Ext, half: int, rows: Ext | None = None, rest: Ext | None = None
) -> tuple[Element, Element]:
    """h(0) and the top coefficient of h(X) = sum over i, j of rows[i] rest[j mod len(rest)] a(X, i, j) b(X, i, j).

    `half`: rows of a full half; a and b have up to 2 half of them. rows (min(half, rows of a) or more, 2), rest (n, 2).
    """
    outer, inner = _ONES if rows is None else rows, _ONES if rest is None else rest
    call = native.function("proof_round_sums", "ippqqqpqpqp")
    if call is None:
        return _round_sums_plain(a, b, half, outer, inner)
    out, is_base = np.empty((2, 2), np.uint64), a.ndim == 2
    a, b, outer, inner = map(np.ascontiguousarray, (a, b, outer, inner))
    pointers = [native.pointer(array) for array in (a, b, outer, inner, out)]
    step = int(rows is not None)
    call(is_base, *pointers[:2], len(a), half, a.shape[1], pointers[2], step, pointers[3], len(inner), pointers[4])
    return field.element(out[0]), field.element(out[1])


def fold_rows(values: Table, half: int, r: Element) -> Ext:
    """Binds the current variable: (rows, rest[, 2]) -> (min(rows, half), rest, 2). May reuse the memory of `values`."""
    count, rest = min(len(values), half), values.shape[1]
    flat = values.reshape(-1) if values.ndim == 2 else values.reshape(-1, 2)
    return short_fold(flat, half * rest, r, ZERO).reshape(count, rest, 2)


def short_fold(values: Base | Ext, half: int, r: Element, missing: Element) -> Ext:
    """f(i) + r (f(i + half) - f(i)) for i < min(n, half), `missing` past the end. May reuse the memory of `values`."""
    is_base, count = values.ndim == 1, min(len(values), half)
    call = native.function("proof_short_fold", "ipqqppp")
    if call is None:
        wide = field.lift(values) if is_base else values
        high = np.empty((count, 2), np.uint64)
        high[:], found = np.array(missing, np.uint64), wide[half:]
        high[: len(found)] = found
        return field.add(wide[:count], field.ext_mul(field.sub(high, wide[:count]), field.ext([r])))
    values = np.ascontiguousarray(values)
    out = np.empty((count, 2), np.uint64) if is_base or not values.flags.writeable else values[:count]
    at, past = field.ext([r]), field.ext([missing])
    pointers = [native.pointer(array) for array in (values, at, past, out)]
    call(is_base, pointers[0], len(values), half, *pointers[1:])
    return out


def weighted_sum(a: Ext, b: Ext, rows: Ext | None, rest: Ext | None) -> Element:
    """sum over (i, j) of rows[i] * rest[j mod len(rest)] * a[i, j] * b[i, j]: h(0) with one half alone."""
    return round_sums(a, b, len(a), rows, rest)[0]


def _halves(values: Ext, half: int) -> tuple[Ext, Ext]:
    low, high = values[:half], values[half:]
    missing = len(low) - len(high)
    return low, np.concatenate([high, np.zeros((missing, *high.shape[1:]), np.uint64)]) if missing else high


def _round_sums_plain(a: Table, b: Ext, half: int, rows: Ext, rest: Ext) -> tuple[Element, Element]:
    a_low, a_high = _halves(field.lift(a) if a.ndim == 2 else a, half)
    b_low, b_high = _halves(b, half)
    outer = np.broadcast_to(rows[: len(a_low)] if len(rows) > 1 else rows, (len(a_low), 2))
    sums = [field.ext_mul(a_low, b_low), field.ext_mul(field.sub(a_high, a_low), field.sub(b_high, b_low))]
    return _weighed(sums[0], outer, rest), _weighed(sums[1], outer, rest)


def _weighed(values: Ext, rows: Ext, rest: Ext) -> Element:
    blocks = values.reshape(len(values), -1, len(rest), 2)
    inner = twin.total(np.moveaxis(field.ext_mul(blocks, rest), 2, 0))
    sums = twin.total(np.moveaxis(inner, 1, 0))
    return field.element(twin.total(field.ext_mul(sums, rows)))


def base_or_ext(values: Base | Ext) -> Table:
    """A flat table (n,) or (n, 2) with rest = 1."""
    return values[:, None]
