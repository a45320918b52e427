"""Gemm, MatMul, Conv, BatchNormalization, and sums and products of tensors."""

from __future__ import annotations

import numpy as np

from shoal.proof.circuit import Shape
from shoal.proof.graph import operators
from shoal.proof.graph.builder import Sum, axis, identity
from shoal.proof.graph.operators import Windows
from shoal.proof.onnx.model import Array, OnnxNode
from shoal.proof.onnx.quantiser import Quantiser
from shoal.proof.onnx.values import Fixed, Narrow, Value, Wide


def gemm(q: Quantiser, node: OnnxNode) -> Value:
    """alpha A' B' + beta C; alpha and beta are put into the constants."""
    a, b = node.inputs[:2]
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if alpha != 1.0 and not isinstance(q.values[b], Fixed):
        raise node.refuse(f"expected alpha 1 where no factor is constant, found {alpha}")
    left = q.narrow(a)
    right = q.own_weight(b, alpha * q.fixed(node, 1)) if isinstance(q.values[b], Fixed) else q.narrow(b)
    shapes = q.builder.tensors[left].shape, q.builder.tensors[right].shape
    trans_a, trans_b = node.attributes.get("transA", 0), node.attributes.get("transB", 0)
    space = (shapes[0][1 if trans_a else 0], shapes[1][0 if trans_b else 1])
    rows, columns = [axis(0), axis(2)], [axis(2), axis(1)]
    how = Sum(
        space,
        (shapes[0][0 if trans_a else 1],),
        tuple(reversed(rows) if trans_a else rows),
        tuple(reversed(columns) if trans_b else columns),
    )
    output = node.outputs[0]
    made = q.builder.contract(f"{output}.sums", left, right, how)
    if len(node.inputs) > 2 and node.inputs[2]:
        made = with_bias(q, output, made, (node.inputs[2], beta * q.fixed(node, 2)))
    return Wide(made, output)


def matmul(q: Quantiser, node: OnnxNode) -> Value:
    left, right = (q.narrow(name) for name in node.inputs)
    if min(len(q.builder.tensors[x].shape) for x in (left, right)) < 2:
        raise node.refuse("expected operands of rank two or more")
    return Wide(operators.matmul(q.builder, f"{node.outputs[0]}.sums", left, right), node.outputs[0])


def with_bias(q: Quantiser, name: str, x: str, bias: tuple[str, Array], along: int | None = None) -> str:
    """x + bias, the bias in x's own scale. along: the axis of a one-dimensional bias, else it is broadcast."""
    shape, fraction = q.builder.tensors[x].shape, q.builder.tensors[x].fraction
    stored = q.weight(bias[0], bias[1], fraction)
    own = q.builder.tensors[stored].shape
    indices = operators.broadcast(own, shape) if along is None else (axis(along),)
    return q.builder.affine(name + ".biased", [(1, x, identity(len(shape))), (1, stored, indices)], shape)


def conv(q: Quantiser, node: OnnxNode) -> Value:
    x, weight = q.narrow(node.inputs[0]), q.own_weight(node.inputs[1], q.fixed(node, 1))
    kernel = q.builder.tensors[weight].shape[2:]
    windows = windows_of(node, kernel, q.shape(node.inputs[0])[2:])
    output = node.outputs[0]
    made = operators.conv(q.builder, f"{output}.conv", x, weight, windows, node.attributes.get("group", 1))
    if len(node.inputs) > 2 and node.inputs[2]:
        made = with_bias(q, output, made, (node.inputs[2], q.fixed(node, 2)), along=1)
    return Wide(made, output)


def windows_of(node: OnnxNode, kernel: Shape, sizes: Shape) -> Windows:
    """Strides, pads and dilations of a convolution or pooling node, `auto_pad` included."""
    rank = len(kernel)
    strides = tuple(node.attributes.get("strides", (1,) * rank))
    dilations = tuple(node.attributes.get("dilations", (1,) * rank))
    pads = tuple(node.attributes.get("pads", (0,) * 2 * rank))
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        both = [_same(n, k, s, d) for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in both]
        return Windows(kernel, strides, tuple(pair[:: 1 if auto == "SAME_UPPER" else -1] for pair in pairs), dilations)  # type: ignore[misc]
    return Windows(kernel, strides, tuple((pads[place], pads[rank + place]) for place in range(rank)), dilations)


def _same(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Padding for an output of ceil(size / stride)."""
    outputs = -(-size // stride)
    return max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)


def batch_norm(q: Quantiser, node: OnnxNode) -> Value:
    """A factor and a summand for each channel. Those behind a convolution or Gemm were folded before (`patterns`)."""
    factor, summand = folded_norm(q, node)
    x, output = q.narrow(node.inputs[0]), node.outputs[0]
    shape = q.builder.tensors[x].shape
    scale = q.own_weight(f"{output}.factor", factor)
    made = q.builder.contract(f"{output}.scaled", x, scale, Sum(shape, (), identity(len(shape)), (axis(1),)))
    return Wide(with_bias(q, output, made, (f"{output}.summand", summand), along=1), output)


def folded_norm(q: Quantiser, node: OnnxNode) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (np.asarray(q.fixed(node, place), np.float64) for place in range(1, 5))
    factor = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return factor, beta - mean * factor


def add(q: Quantiser, node: OnnxNode, sign: int = 1) -> Value:
    """a + b, or a - b with sign -1. One sum of products may stay unrounded; constants get the finer scale."""
    output, (a, b) = node.outputs[0], node.inputs
    signs = {0: 1, 1: sign}
    constant = next((place for place, name in enumerate((a, b)) if isinstance(q.values[name], Fixed)), None)
    if constant is not None:
        x = q.sum_of((a, b)[1 - constant])
        wide = isinstance(q.values[(a, b)[1 - constant]], Wide)
        array = q.fixed(node, constant)
        fraction = max(q.builder.tensors[x].fraction, q.precision.fraction_of(float(np.abs(array).max())))
        stored = q.weight((a, b)[constant], array, fraction)
        made = operators.add(q.builder, output, [(signs[1 - constant], x), (signs[constant], stored)])
        return Wide(made, output) if wide else Narrow(made)
    first = q.sum_of(a)
    second = q.narrow(b) if isinstance(q.values[a], Wide) else q.sum_of(b)
    made = operators.add(q.builder, f"{output}.sum", [(1, first), (sign, second)])
    wide = isinstance(q.values[a], Wide) or isinstance(q.values[b], Wide)
    return Wide(made, output) if wide else Narrow(made)


def multiply(q: Quantiser, node: OnnxNode) -> Value:
    left, right = (q.narrow(name) for name in node.inputs)
    return Wide(operators.multiply(q.builder, f"{node.outputs[0]}.product", left, right), node.outputs[0])
