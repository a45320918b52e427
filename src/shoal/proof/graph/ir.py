"""The integer graph: tensors, seven operators, nodes in order of evaluation. Data only.

Reads are those of circuits (`proof.circuit.Index`): an axis of an operand is picked by an affine combination of the
node's own axes, and reading outside an operand gives zero. So convolution, pooling windows, slices, transposes,
concatenations and rotations are index maps, not operators.

Rules that stay true in this file:
- every operator is a function of its inputs alone: the same integers in, the same integers out, everywhere;
- rounding is to the nearest, halves up: round(x / 2^s) = floor((x + 2^(s-1)) / 2^s), and round(x / 2^0) = x;
- a value outside a tensor's declared range is an error of the run, never a saturation nobody asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal.proof.circuit import Index, Shape

Ints = npt.NDArray[np.signedinteger[Any]]
"""Integers of any signed width; values between operators are int64."""
Role = Literal["input", "weight", "constant", "inner"]
Indices = tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's declaration. Its entries lie in low .. high and stand for entry * 2^-fraction.

    role  input: given with each run. weight: the model's. constant: part of the method (masks, rotations). inner: made
          by the one node whose output it is.
    """

    shape: Shape
    low: int
    high: int
    fraction: int
    role: Role = "inner"


@dataclass(frozen=True, slots=True)
class Contract:
    """out[i] = sum over k in `summed` of a[left(i, k)] * b[right(i, k)]. Axes: the output's, then the summed ones."""

    summed: Shape
    left: Indices
    right: Indices


@dataclass(frozen=True, slots=True)
class Affine:
    """out[i] = constant + sum over operands of coefficient * operand[indices(i)].

    An `Index` with `gather` names a one-dimensional input tensor whose entries are the indices.
    """

    reads: tuple[tuple[int, Indices], ...]
    constant: int = 0


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same entries in the same (row-major) order, in the output's shape."""


@dataclass(frozen=True, slots=True)
class Requantize:
    """out[i] = the largest round(x[indices(i, k)] / 2^shift), k in `window`; not below 0 if `relu`.

    Rounding and rectifying never change an order, so rectify-then-pool and pool-then-round are this too. Every rounded
    entry, before pooling and rectifying, lies in low .. high. No `indices`: the output's own axes.
    """

    shift: int
    low: int
    high: int
    relu: bool = False
    window: Shape = ()
    indices: Indices = ()


@dataclass(frozen=True, slots=True)
class Table:
    """out = values[x - first], `values` a constant of the graph with at most 2^16 entries."""

    values: str
    first: int


@dataclass(frozen=True, slots=True)
class Softmax:
    """Along the last axis: p_j = E(c - q_j), q = round(x / 2^shift), c the smallest integer with sum E(c - q) <= 2^one.

    E(d), d = -1, 0, 1, ..., is the constant `values` (first entry for -1): round(2^one exp(-d / 2^f)), falling. So c is
    the logarithm of the sum of exponentials, to a precision of 2^-f, and p needs no division. Differences c - q_j must
    lie within the table, and c in low .. high. A mask is a constant added to x that brings E to zero.
    """

    shift: int
    values: str
    one: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class InverseRoot:
    """out = T(floor(x / 4^e)) * 2^(exponents - e), e such that 2^(mantissa - 2) <= floor(x / 4^e) < 2^mantissa.

    T is the constant `values`, whose first entry is for 2^(mantissa - 2): round(2^k / sqrt(m)). So the result is about
    2^(k + exponents) / sqrt(x), to `mantissa` bits whatever the size of x. Domain: 0 <= e <= exponents.
    """

    values: str
    mantissa: int
    exponents: int


Operator = Contract | Affine | Reshape | Requantize | Table | Softmax | InverseRoot


@dataclass(frozen=True, slots=True)
class Node:
    """One operator applied. `name` says where in the model it comes from; errors quote it."""

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in order of evaluation; `arrays` holds weights and constants (in the narrowest signed type that fits)."""

    tensors: dict[str, Tensor]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arrays: dict[str, Ints] = field(default_factory=dict)


def compact(array: npt.ArrayLike) -> Ints:
    """The array in the narrowest signed integer type that holds it, C order."""
    whole = np.asarray(array, np.int64, order="C")
    low, high = (int(whole.min()), int(whole.max())) if whole.size else (0, 0)
    types = (np.int8, np.int16, np.int32, np.int64)
    fitting = next(kind for kind in types if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return whole.astype(fitting)
