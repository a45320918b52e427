"""E4M3 eight-bit floats (https://arxiv.org/abs/2209.05433, the OCP FP8 "E4M3" without infinities): sign, four bits of
exponent with bias 7, three of mantissa; largest 448, smallest step 2^-9; 0x7F and 0xFF are NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 448.0


def _table() -> NDArray[np.float32]:
    """The value of each of the 256 codes."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    size[(codes & 0x7F) == 0x7F] = np.nan
    return np.where(codes >= 128, -size, size).astype(np.float32)


VALUES = _table()


def e4m3_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The nearest code of each finite value, ties to the even code; beyond 448, 448.

    Rounds in float32's own bits: the shortest path numpy has, about 15 operations a value.
    """
    clipped = np.minimum(np.abs(values), np.float32(LARGEST)).astype(np.float32, copy=False)
    bits = clipped.view(np.uint32)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - ((127 - 7) << 3)
    small = np.rint(clipped * np.float32(2**9)).astype(np.uint32)
    code = np.where(clipped < np.float32(2**-6), small, normal).astype(np.uint8)
    return code | np.where(np.signbit(values), np.uint8(128), np.uint8(0))


def e4m3_values(codes: NDArray[Any]) -> NDArray[np.float32]:
    """The value of each code."""
    return np.take(VALUES, codes)
