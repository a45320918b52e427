"""Tensors on their way through an import: in the graph, summed but not yet rounded, or a curve not yet tabulated.

Rounding waits until somebody needs the rounded numbers, so that a rectifier and a pooling window behind a product
become one requantization with it, and a chain of functions of one tensor becomes one table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.proof.graph.operators import Windows
from shoal.proof.graph.tables import Curve
from shoal.proof.onnx.model import Array


@dataclass(frozen=True, slots=True)
class Narrow:
    """In the graph, rounded (or exact): fit to be multiplied."""

    tensor: str


@dataclass(frozen=True, slots=True)
class Wide:
    """In the graph with more bits than it needs, to be rounded when used, then rectified and pooled if it says so.

    origin: the ONNX tensor whose extent is that of the entries before rectifying and pooling.
    """

    tensor: str
    origin: str
    relu: bool = False
    windows: Windows | None = None


@dataclass(frozen=True, slots=True)
class Curved:
    """A function of each entry of an ONNX tensor. `linear`: (a, b) if the function is a x + b, else None."""

    base: str
    function: Curve
    linear: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Fixed:
    """Known when the model is imported."""

    array: Array


Value = Narrow | Wide | Curved | Fixed


def is_scalar(value: Value) -> bool:
    return isinstance(value, Fixed) and np.asarray(value.array).size == 1
