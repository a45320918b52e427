"""Sums a tensor along one axis with weights from the extension field: the prover's passes over its numbers.

`contract` takes integers of any width as they are stored (8-bit weights are read as 8-bit weights), base or extension
elements. Its C twin is csrc/contract.c.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.proof import field, native, twin
from shoal.proof.field import Ext

Tensor = npt.NDArray[np.generic]
"""Signed integers, or uint64 base elements."""

_BASE, _EXT = 9, 16


def contract(values: Tensor, weights: Ext, is_ext: bool = False) -> Ext:
    """sum over j of values[i, j, k] * weights[j, m].

    values (outer, n, inner), and (outer, n, inner, 2) for extension elements; weights (n, K, 2).
    Returns (outer, K, inner, 2).
    """
    call = native.function("proof_contract", "ipqqqpqp")
    if call is None:
        return _contract_plain(values, weights, is_ext)
    values, weights = np.ascontiguousarray(values), np.ascontiguousarray(weights)
    count, inner, columns = values.shape[0], values.shape[2], weights.shape[1]
    out = np.empty((count, columns, inner, 2), np.uint64)
    kind = _EXT if is_ext else _BASE if values.dtype == np.uint64 else values.dtype.itemsize
    pointers = native.pointer(values), native.pointer(weights), native.pointer(out)
    call(kind, pointers[0], count, values.shape[1], inner, pointers[1], columns, pointers[2])
    return out


def _contract_plain(values: Tensor, weights: Ext, is_ext: bool) -> Ext:
    wide = values.astype(np.uint64) if is_ext else field.lift(field.from_ints(values.astype(values.dtype)))
    columns = [
        twin.total(twin.ext_mul(np.moveaxis(wide, 1, 0), w[:, None, None, :])) for w in np.moveaxis(weights, 1, 0)
    ]
    return np.stack(columns, axis=1)
