"""Arrays over the field: base elements are uint64 below p, extension elements have one more axis, of length 2.

Every function takes canonical elements and gives canonical ones, broadcasts as numpy does (the last axis of extension
arrays apart) and computes in C where there is a library, else in numpy; both agree to the bit. For single elements see
`scalars`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from shoal.proof import native, twin
from shoal.proof.scalars import Element, P

Base = npt.NDArray[np.uint64]
"""Canonical elements of GF(p)."""
Ext = npt.NDArray[np.uint64]
"""Canonical elements of F, shape (..., 2)."""

_ADD, _SUB, _MUL = 0, 1, 2


def from_ints(values: npt.NDArray[np.integer]) -> Base:
    """Signed integers modulo p. Unsigned 64-bit ones are reduced too."""
    out = np.empty(values.shape, np.uint64)
    fill_from_ints(out, values)
    return out


def fill_from_ints(out: Base, values: npt.NDArray[np.integer]) -> None:
    """As `from_ints`, into contiguous memory of the same size."""
    call = native.function("proof_from_ints", "pipq")
    if values.dtype == np.uint64:
        out.reshape(values.shape)[...] = np.where(values >= P, values - np.uint64(P), values)
        return
    given = np.ascontiguousarray(values if values.dtype.kind == "i" else values.astype(np.int64))
    if call is None:
        out.reshape(given.shape)[...] = twin.from_ints(given)
    else:
        call(native.pointer(given), given.itemsize, native.pointer(out), _same((given.size,), (out.size,)))


def to_ints(values: Base) -> npt.NDArray[np.int64]:
    """The integer nearest to zero that each element stands for: -(p - 1) / 2 to (p - 1) / 2."""
    return np.where(values > P // 2, values - np.uint64(P), values).astype(np.int64)


def is_canonical(values: npt.NDArray[np.uint64]) -> bool:
    """Whether all of them are below p."""
    return bool((values < P).all())


def ext(elements: Iterable[Element]) -> Ext:
    """Elements as an array, (n, 2)."""
    return np.array([*elements], np.uint64).reshape(-1, 2)


def element(value: Ext) -> Element:
    """The single element of an array (2,)."""
    return (int(value[0]), int(value[1]))


def elements(values: Ext) -> list[Element]:
    """The elements of an array (n, 2)."""
    return [(a, b) for a, b in values.tolist()]


def lift(values: Base) -> Ext:
    """Base elements as extension elements, (..., 2)."""
    out = np.zeros((*values.shape, 2), np.uint64)
    out[..., 0] = values
    return out


# ---- the base field -------------------------------------------------------------------------------------


def add(a: Base, b: Base) -> Base:
    return _base(_ADD, a, b)


def sub(a: Base, b: Base) -> Base:
    return _base(_SUB, a, b)


def mul(a: Base, b: Base) -> Base:
    return _base(_MUL, a, b)


def neg(a: Base) -> Base:
    return sub(np.zeros((), np.uint64), a)


# ---- the extension --------------------------------------------------------------------------------------


def ext_add(a: Ext, b: Ext) -> Ext:
    return add(a, b)


def ext_sub(a: Ext, b: Ext) -> Ext:
    return sub(a, b)


def ext_mul(a: Ext, b: Ext) -> Ext:
    shape = _common(a.shape, b.shape)
    call = native.function("proof_ext_mul", "ipqpqpq")
    if call is None:
        return twin.ext_mul(a, b)
    return _ext_mul(call, a, b, shape)


def ext_scale(a: Ext, s: Base) -> Ext:
    """Extension elements (..., 2) times base elements (...)."""
    shape = (*_common(a.shape[:-1], s.shape), 2)
    call = native.function("proof_ext_mul", "ipqpqpq")
    if call is None:
        return twin.mul(a, s[..., None])
    return _ext_scale(call, a, s, shape)


def ext_outer(a: Ext, b: Ext) -> Ext:
    """Every product of an entry of each: (n, 2) and (m, 2) -> (n * m, 2), b's index moving fastest."""
    call = native.function("proof_ext_outer", "pqpqp")
    if call is None:
        return twin.ext_mul(a[:, None], b[None]).reshape(-1, 2)
    a, b, out = np.ascontiguousarray(a), np.ascontiguousarray(b), np.empty((len(a) * len(b), 2), np.uint64)
    call(native.pointer(a), len(a), native.pointer(b), len(b), native.pointer(out))
    return out


def dot_base(a: Base, b: Ext) -> Element:
    """sum of a[i] b[i]; a (n,), b (n, 2)."""
    call = native.function("proof_dot_base_ext", "ppqp")
    if call is None:
        return element(twin.total(twin.mul(b, a[:, None])))
    a, b, out = np.ascontiguousarray(a), np.ascontiguousarray(b), np.empty(2, np.uint64)
    call(native.pointer(a), native.pointer(b), _same(a.shape, b.shape[:-1]), native.pointer(out))
    return element(out)


def dot_ext(a: Ext, b: Ext) -> Element:
    """sum of a[i] b[i]; both (n, 2)."""
    call = native.function("proof_dot_ext", "ppqp")
    if call is None:
        return element(twin.total(twin.ext_mul(a, b)))
    a, b, out = np.ascontiguousarray(a), np.ascontiguousarray(b), np.empty(2, np.uint64)
    call(native.pointer(a), native.pointer(b), _same(a.shape, b.shape) // 2, native.pointer(out))
    return element(out)


# ---- calls ----------------------------------------------------------------------------------------------


def _same(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    if a != b:
        raise ValueError(f"expected arrays of one shape, found {a} and {b}")
    return math.prod(a)


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """numpy's rule, without its price where nothing is to be broadcast."""
    return a if a == b else np.broadcast_shapes(a, b)


def _base(op: int, a: Base, b: Base) -> Base:
    shape = _common(a.shape, b.shape)
    call = native.function("proof_base_map", "ipqpqpq")
    if call is None:
        return (twin.add, twin.sub, twin.mul)[op](a, b)
    out = np.empty(shape, np.uint64)
    a, sa = _operand(a, shape)
    b, sb = _operand(b, shape)
    call(op, native.pointer(a), sa, native.pointer(b), sb, native.pointer(out), out.size)
    return out


def _ext_mul(call: Callable[..., int], a: Ext, b: Ext, shape: tuple[int, ...]) -> Ext:
    out = np.empty(shape, np.uint64)
    a, sa = _operand(a, shape, 2)
    b, sb = _operand(b, shape, 2)
    call(0, native.pointer(a), sa, native.pointer(b), sb, native.pointer(out), out.size // 2)
    return out


def _ext_scale(call: Callable[..., int], a: Ext, s: Base, shape: tuple[int, ...]) -> Ext:
    out = np.empty(shape, np.uint64)
    a, sa = _operand(a, shape, 2)
    s, ss = _operand(s, shape[:-1])
    call(1, native.pointer(a), sa, native.pointer(s), ss, native.pointer(out), out.size // 2)
    return out


def _operand(a: npt.NDArray[np.uint64], shape: tuple[int, ...], one: int = 1) -> tuple[npt.NDArray[np.uint64], int]:
    """Contiguous memory and a stride: 1, or 0 where a single element (of `one` words) meets them all."""
    if a.shape == shape:
        return np.ascontiguousarray(a), 1
    if a.size == one:
        return np.ascontiguousarray(a), 0
    return np.ascontiguousarray(np.broadcast_to(a, shape)), 1
