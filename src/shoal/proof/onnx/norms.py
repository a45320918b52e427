"""Softmax and normalisations of the last axis."""

from __future__ import annotations

from math import ceil, floor, log, log2

import numpy as np

from shoal.proof.circuit import Shape
from shoal.proof.graph import attention, operators
from shoal.proof.graph.attention import Norm, SoftmaxScale
from shoal.proof.onnx.linear import with_bias
from shoal.proof.onnx.model import OnnxNode
from shoal.proof.onnx.quantiser import Quantiser
from shoal.proof.onnx.values import Narrow, Value, Wide


def softmax(q: Quantiser, node: OnnxNode) -> Value:
    name, output = node.inputs[0], node.outputs[0]
    shape = q.shape(name)
    _last_axis(node, shape, node.attributes.get("axis", -1))
    extent = q.extent(name)
    span = (extent.high - extent.low) * 2.0**q.precision.headroom + log(shape[-1])
    rows = 1 << (16 if q.precision.fraction is not None else 12)
    fraction = floor(log2((rows - 2) / max(span, 1.0)))
    one = 16 if q.precision.fraction is not None else 12
    return Narrow(attention.softmax(q.builder, output, q.sum_of(name), SoftmaxScale(fraction, one, rows)))


def layer_norm(q: Quantiser, node: OnnxNode) -> Value:
    return _norm(q, node, centred=True)


def rms_norm(q: Quantiser, node: OnnxNode) -> Value:
    return _norm(q, node, centred=False)


def _norm(q: Quantiser, node: OnnxNode, centred: bool) -> Value:
    """x / |x| (after the mean is taken away) times weight * sqrt(n), plus the bias."""
    name, output = node.inputs[0], node.outputs[0]
    shape = q.shape(name)
    _last_axis(node, shape, node.attributes.get("axis", -1))
    fine = q.precision.fraction if q.precision.fraction is not None else 9
    how = Norm(
        epsilon=node.attributes.get("epsilon", 1e-5),
        centred=centred,
        mantissa=14 if q.precision.fraction is not None else 12,
        fraction=fine + ceil(log2(shape[-1]) / 2),
    )
    unit = attention.normalise(q.builder, f"{output}.unit", q.narrow(name), how)
    gain = np.asarray(q.fixed(node, 1), np.float64) * np.sqrt(shape[-1])
    made = operators.multiply(
        q.builder, f"{output}.gained", unit, q.own_weight(f"{node.inputs[1]}.gain {output}", gain)
    )
    if len(node.inputs) > 2 and node.inputs[2]:
        made = with_bias(q, output, made, (node.inputs[2], q.fixed(node, 2)))
    return Wide(made, output)


def _last_axis(node: OnnxNode, shape: Shape, along: int) -> None:
    if along % len(shape) != len(shape) - 1:
        raise node.refuse(
            f"expected attribute axis to be the last of {len(shape)}, found {along}: transpose before and after"
        )
