"""Functions of one tensor, entry by entry: composed while they chain, tabulated when somebody needs their numbers.

So SiLU (x * Sigmoid(x)), both spellings of GELU, HardSwish and the like need no patterns: any expression over one
tensor and constants is one function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shoal.proof.graph import tables
from shoal.proof.graph.tables import Curve, Floats
from shoal.proof.onnx import linear
from shoal.proof.onnx.model import OnnxNode
from shoal.proof.onnx.quantiser import Quantiser
from shoal.proof.onnx.values import Curved, Fixed, Value, is_scalar

UNARY: dict[str, Curve] = {
    "Sigmoid": tables.sigmoid,
    "Tanh": np.tanh,
    "Erf": tables.erf,
    "Exp": np.exp,
    "Sqrt": np.sqrt,
    "Abs": np.abs,
    "HardSwish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "Softplus": lambda x: np.logaddexp(x, 0.0),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
    "Swish": tables.silu,
}
LINEAR = {"Neg": (-1.0, 0.0)}
BINARY: dict[str, Callable[[Floats, Floats], Floats]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
}


def unary(q: Quantiser, node: OnnxNode) -> Value:
    inner = _curved(q, node.inputs[0])
    if node.op in LINEAR:
        return _combined("Mul", inner, LINEAR[node.op][0])
    outer = _with_attributes(node)
    return Curved(inner.base, lambda x: outer(inner.function(x)), None)


def _with_attributes(node: OnnxNode) -> Curve:
    match node.op:
        case "Gelu":
            return tables.gelu_tanh if node.attributes.get("approximate", "none") == "tanh" else tables.gelu
        case "LeakyRelu":
            slope = node.attributes.get("alpha", 0.01)
            return lambda x: np.where(x < 0, slope * x, x)
        case "Elu":
            alpha = node.attributes.get("alpha", 1.0)
            return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)
        case "HardSigmoid":
            alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
            return lambda x: np.clip(alpha * x + beta, 0.0, 1.0)
        case _:
            return UNARY[node.op]


def binary(q: Quantiser, node: OnnxNode) -> Value:
    """With a scalar: a curve. Of two functions of one tensor: a curve. Else a sum or product of tensors."""
    left, right = (q.values[name] for name in node.inputs)
    if isinstance(left, Fixed) and isinstance(right, Fixed):
        return Fixed(BINARY[node.op](left.array, right.array))
    if is_scalar(right) and isinstance(right, Fixed):
        return _combined(node.op, _curved(q, node.inputs[0]), float(right.array.reshape(())))
    if is_scalar(left) and isinstance(left, Fixed):
        return _flipped(node.op, float(left.array.reshape(())), _curved(q, node.inputs[1]))
    first, second = (_curved(q, name) for name in node.inputs)
    if first.base == second.base and (isinstance(left, Curved) or isinstance(right, Curved)):
        combine = BINARY[node.op]
        return Curved(first.base, lambda x: combine(first.function(x), second.function(x)), None)
    return _of_tensors(q, node)


def _of_tensors(q: Quantiser, node: OnnxNode) -> Value:
    match node.op:
        case "Add":
            return linear.add(q, node)
        case "Sub":
            return linear.add(q, node, -1)
        case "Mul":
            return linear.multiply(q, node)
        case "Div" if isinstance(q.values[node.inputs[1]], Fixed):
            return linear.multiply(q, _reciprocal_constant(q, node))
        case _:
            raise node.refuse("expected a constant or the same tensor on one side")


def _reciprocal_constant(q: Quantiser, node: OnnxNode) -> OnnxNode:
    """The same node as a product with the constant's reciprocal."""
    name = f"{node.inputs[1]}.reciprocal"
    q.values[name] = Fixed(1.0 / np.asarray(q.fixed(node, 1), np.float64))
    return OnnxNode("Mul", node.name, (node.inputs[0], name), node.outputs, node.attributes)


def _curved(q: Quantiser, name: str) -> Curved:
    """The tensor as a function: of another one if it still is, else of itself."""
    value = q.values[name]
    return value if isinstance(value, Curved) else Curved(name, lambda x: x, (1.0, 0.0))


def _combined(op: str, inner: Curved, scalar: float) -> Value:
    """inner op scalar; a x + b stays known as such."""
    combine = BINARY[op]
    return Curved(inner.base, lambda x: combine(inner.function(x), np.asarray(scalar)), _line(op, inner.linear, scalar))


def _line(op: str, line: tuple[float, float] | None, scalar: float) -> tuple[float, float] | None:
    if line is None or op == "Pow":
        return None
    a, b = line
    if op in ("Add", "Sub"):
        return a, b + (scalar if op == "Add" else -scalar)
    factor = scalar if op == "Mul" else 1.0 / scalar
    return a * factor, b * factor


def _flipped(op: str, scalar: float, inner: Curved) -> Value:
    """scalar op inner."""
    if op in ("Add", "Mul"):
        return _combined(op, inner, scalar)
    combine = BINARY[op]
    line = None if inner.linear is None or op != "Sub" else (-inner.linear[0], scalar - inner.linear[1])
    return Curved(inner.base, lambda x: combine(np.asarray(scalar), inner.function(x)), line)
