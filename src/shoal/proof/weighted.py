"""What a public matrix of small integers gives between two vectors, at the price of reading it once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.proof import field, native
from shoal.proof.field import Base, Ext
from shoal.proof.scalars import Element, P


def product(matrix: npt.NDArray[np.signedinteger], u: Ext, v: Ext) -> Element:
    """sum of matrix[i, j] u[i] v[j]; int8 and int16 are read as they are, others become field elements row by row."""
    rows, columns = matrix.shape
    if u.shape != (rows, 2) or v.shape != (columns, 2):
        raise ValueError(f"expected vectors for a {rows} x {columns} matrix, found {u.shape} and {v.shape}")
    call = native.function("proof_product", "piqqppp")
    if call is None or matrix.dtype not in (np.int8, np.int16):
        return field.dot_ext(u, field.ext(field.dot_base(field.from_ints(row), v) for row in matrix))
    matrix, u, out = np.ascontiguousarray(matrix), np.ascontiguousarray(u), np.empty(2, np.uint64)
    parts = np.ascontiguousarray(np.concatenate([_halves(v[:, 0]), _halves(v[:, 1])]))
    given = (native.pointer(u), native.pointer(parts), native.pointer(out))
    call(native.pointer(matrix), matrix.itemsize, rows, columns, *given)
    return field.element(out)


def _halves(values: Base) -> npt.NDArray[np.int32]:
    """(2, n): low and high, value = low + 2^32 high modulo p, both signed."""
    with np.errstate(over="ignore"):
        signed = np.where(values >= P // 2, values - np.uint64(P), values).view(np.int64)
        low = signed.astype(np.int32)  # the lower 32 bits
        return np.stack([low, ((signed - low) >> 32).astype(np.int32)])
