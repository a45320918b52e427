"""Fixed functions as tables of integers. Computed once, when a graph is made, and stored in it: what a proof speaks
about is the stored table, so another machine's last digit of `exp` changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shoal.proof.graph.ir import Ints

Floats = npt.NDArray[np.float64]
Curve = Callable[[Floats], Floats]


def curve(function: Curve, first: int, last: int, fractions: tuple[int, int]) -> Ints:
    """round(2^out f(x / 2^in)) for x = first .. last, fractions = (in, out)."""
    x = np.arange(first, last + 1, dtype=np.float64) * 2.0 ** -fractions[0]
    values: Ints = np.rint(function(x) * 2.0 ** fractions[1]).astype(np.int64)
    return values


def exponentials(fraction: int, one: int, rows: int) -> Ints:
    """E of `ir.Softmax`: round(2^one exp(-d / 2^fraction)) for d = -1 .. rows - 2."""
    return curve(lambda d: np.exp(-d), -1, rows - 2, (fraction, one))


def inverse_roots(mantissa: int) -> Ints:
    """T of `ir.InverseRoot`: round(2^(3 mantissa / 2) / sqrt(m)) for 2^(mantissa - 2) <= m < 2^mantissa."""
    m = np.arange(1 << (mantissa - 2), 1 << mantissa, dtype=np.float64)
    values: Ints = np.rint(2.0 ** (1.5 * mantissa) / np.sqrt(m)).astype(np.int64)
    return values


def sigmoid(x: Floats) -> Floats:
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def silu(x: Floats) -> Floats:
    return x * sigmoid(x)


def erf(x: Floats) -> Floats:
    """Abramowitz and Stegun would be 1.5e-7 off; the standard library's is right to the last digit."""
    from math import erf as one

    return np.vectorize(one, otypes=[np.float64])(x)  # type: ignore[no-any-return]


def gelu(x: Floats) -> Floats:
    return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))


def gelu_tanh(x: Floats) -> Floats:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))  # type: ignore[no-any-return]
