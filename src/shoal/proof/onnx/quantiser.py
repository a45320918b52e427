"""The state of an import: what every ONNX tensor is so far, and the roundings that make integers of one scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shoal.proof.circuit import Shape
from shoal.proof.graph import operators
from shoal.proof.graph.builder import MAX_TABLE, Builder, identity
from shoal.proof.graph.operators import Rounded
from shoal.proof.onnx.calibrate import Extent
from shoal.proof.onnx.model import Array, OnnxGraph, OnnxNode
from shoal.proof.onnx.precision import Precision
from shoal.proof.onnx.values import Curved, Fixed, Narrow, Value, Wide


class Quantiser:
    """Grows an integer graph beside the ONNX one. Its tensors have the ONNX tensors' names, suffixed where several."""

    def __init__(self, graph: OnnxGraph, extents: Mapping[str, Extent], precision: Precision) -> None:
        self.graph, self.extents, self.precision = graph, extents, precision
        self.builder = Builder()
        self.values: dict[str, Value] = {name: Fixed(array) for name, array in graph.constants.items()}
        self._keys: dict[str, str] = {}

    def extent(self, name: str) -> Extent:
        return self.extents[name]

    def shape(self, name: str) -> Shape:
        """The tensor's ONNX shape (in the integer graph it is the same)."""
        value = self.values.get(name)
        return tuple(value.array.shape) if isinstance(value, Fixed) else self.graph.shapes[name]

    def fixed(self, node: OnnxNode, place: int) -> Array:
        """An input that must be a constant."""
        value = self.values.get(node.inputs[place])
        if not isinstance(value, Fixed):
            raise node.refuse(f"expected input {place} ({node.inputs[place]!r}) to be a constant")
        return value.array

    # ---- floats to integers

    def weight(self, name: str, array: Array, fraction: int) -> str:
        """A constant of the model, rounded to `fraction` fractional bits; made once for each fraction."""
        stored = f"{name}.2^-{fraction}"
        if stored not in self.builder.tensors:
            self.builder.weight(
                stored, np.rint(np.asarray(array, np.float64) * 2.0**fraction).astype(np.int64), fraction
            )
        return stored

    def own_weight(self, name: str, array: Array) -> str:
        """A constant in the precision's scale for it."""
        largest = float(np.abs(array).max()) if np.size(array) else 0.0
        return self.weight(name, array, self.precision.fraction_of(largest))

    # ---- tensors fit for use

    def narrow(self, name: str) -> str:
        """The tensor rounded to the precision's scale for it: a factor of products, a part of sums."""
        value = self.values[name]
        match value:
            case Narrow(tensor):
                return tensor
            case Fixed(array):
                return self.own_weight(name, array)
            case Wide():
                made = self._round(name, value, self.precision.fraction_of(self.extent(name).largest), name)
            case Curved():
                return self._curve(name, value)
        self.values[name] = Narrow(made)
        return made

    def sum_of(self, name: str) -> str:
        """The tensor as it is if nothing is pending but its rounding, else rounded."""
        value = self.values[name]
        if isinstance(value, Wide) and not value.relu and value.windows is None:
            return value.tensor
        return self.narrow(name)

    def key(self, name: str) -> str:
        """The tensor in at most 16 bits, to be looked up in a table."""
        if name not in self._keys:
            self._keys[name] = self._make_key(name)
        return self._keys[name]

    def _make_key(self, name: str) -> str:
        value = self.values[name]
        fraction = self.precision.table_fraction(self.extent(name).largest)
        if not isinstance(value, Wide):
            tensor = self.narrow(name)
            held = self.builder.tensors[tensor]
            if held.high - held.low < MAX_TABLE:
                return tensor
            value = Wide(tensor, name)
        return self._round(f"{name}.key", value, fraction, name)

    def _round(self, made: str, value: Wide, fraction: int, name: str) -> str:
        extent = self.extent(value.origin)
        target = Rounded(fraction, self.precision.within(extent.low, extent.high, fraction), value.relu)
        if value.windows is None:
            return operators.round_to(self.builder, made, value.tensor, target)
        rank = len(value.windows.kernel)
        return operators.max_pool(self.builder, made, value.tensor, value.windows, target, self.shape(name)[-rank:])

    def _curve(self, name: str, value: Curved) -> str:
        if value.linear is not None:
            self.values[name] = self.scaled(name, self.sum_of(value.base), value.linear)
            return self.narrow(name)
        fraction = self.precision.fraction_of(self.extent(name).largest)
        self.values[name] = Narrow(operators.curve(self.builder, name, self.key(value.base), value.function, fraction))
        return self.narrow(name)

    def scaled(self, name: str, x: str, line: tuple[float, float]) -> Wide:
        """a x + b, with a to the precision's weights (exactly, if a is a short binary fraction)."""
        a, b = line
        finest = self.precision.fraction_of(abs(a))
        bits = next((k for k in range(max(finest, 1)) if a * 2.0**k == round(a * 2.0**k)), finest)
        rank, fraction = len(self.builder.tensors[x].shape), self.builder.tensors[x].fraction + bits
        term = (round(a * 2.0**bits), x, identity(rank))
        constant = round(b * 2.0**fraction)
        shape = self.builder.tensors[x].shape
        return Wide(self.builder.affine(f"{name}.line", [term], shape, constant, fraction), name)
