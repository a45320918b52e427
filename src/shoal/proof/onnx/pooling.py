"""Relu, Clip, and windows: maxima that wait for the rounding of what they pool, and averages."""

from __future__ import annotations

import numpy as np

from shoal.proof.circuit import Shape
from shoal.proof.graph import operators
from shoal.proof.graph.operators import Windows
from shoal.proof.onnx.linear import windows_of
from shoal.proof.onnx.model import Array, OnnxNode
from shoal.proof.onnx.quantiser import Quantiser
from shoal.proof.onnx.values import Narrow, Value, Wide


def relu(q: Quantiser, node: OnnxNode) -> Value:
    """Left pending on what is still to be rounded; the order of Relu and MaxPool does not matter."""
    value = q.values[node.inputs[0]]
    if isinstance(value, Wide):
        return Wide(value.tensor, value.origin, True, value.windows)
    return Wide(q.narrow(node.inputs[0]), node.inputs[0], True)


def clip(q: Quantiser, node: OnnxNode) -> Value:
    """Bounds are rounded to the tensor's scale; a missing one, or one beyond what the tensor holds, does nothing."""
    x, output = q.narrow(node.inputs[0]), node.outputs[0]
    held = q.builder.tensors[x]
    bounds = [_bound(q, node, place, key) for place, key in ((1, "min"), (2, "max"))]
    ends = [
        default if b is None else round(b * 2.0**held.fraction)
        for b, default in zip(bounds, (held.low, held.high), strict=True)
    ]
    return Narrow(operators.clip(q.builder, output, x, ends[0], ends[1]))


def _bound(q: Quantiser, node: OnnxNode, place: int, key: str) -> float | None:
    if len(node.inputs) > place and node.inputs[place]:
        return float(q.fixed(node, place))
    return node.attributes.get(key)


def max_pool(q: Quantiser, node: OnnxNode) -> Value:
    name = node.inputs[0]
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refuse("expected no use of the positions of maxima")
    windows = _windows(q, node)
    value = q.values[name]
    if isinstance(value, Wide) and value.windows is None:
        return Wide(value.tensor, value.origin, value.relu, windows)
    return Wide(q.narrow(name), name, False, windows)


def _windows(q: Quantiser, node: OnnxNode) -> Windows:
    return windows_of(node, tuple(node.attributes["kernel_shape"]), q.shape(node.inputs[0])[2:])


def average_pool(q: Quantiser, node: OnnxNode) -> Value:
    windows = _windows(q, node)
    outputs = q.graph.shapes[node.outputs[0]][2:]
    counts = _counts(windows, q.shape(node.inputs[0])[2:], outputs, bool(node.attributes.get("count_include_pad", 0)))
    return _average(q, node, windows, counts)


def global_average_pool(q: Quantiser, node: OnnxNode) -> Value:
    sizes = q.shape(node.inputs[0])[2:]
    ones, pads = (1,) * len(sizes), ((0, 0),) * len(sizes)
    return _average(q, node, Windows(sizes, ones, pads, ones), np.full((1,) * len(sizes), int(np.prod(sizes))))


def _average(q: Quantiser, node: OnnxNode, windows: Windows, counts: Array) -> Value:
    """Sums times 1 / count: exactly where all counts are one power of two, else to 16 bits below the smallest."""
    x, output = q.narrow(node.inputs[0]), node.outputs[0]
    most = int(counts.max())
    exact = counts.min() == most and most & (most - 1) == 0
    fraction = most.bit_length() - 1 + (0 if exact else 16)
    shares = 1.0 / (counts if counts.min() != most else np.asarray(most))
    share = q.weight(f"{output}.share", shares, fraction)
    outputs = q.graph.shapes[output][2:]
    return Wide(operators.average_pool(q.builder, f"{output}.sums", x, windows, share, outputs), output)


def _counts(windows: Windows, sizes: Shape, outputs: Shape, include_pads: bool) -> Array:
    """How many entries each window has: all that lie inside, and the declared padding if it counts."""
    counts = np.ones((), np.int64)
    for place, length in enumerate(outputs):
        before, after = windows.pads[place]
        low, high = (-before, sizes[place] + after) if include_pads else (0, sizes[place])
        where = windows.strides[place] * np.arange(length)[:, None] - before
        where = where + windows.dilations[place] * np.arange(windows.kernel[place])
        counts = np.multiply.outer(counts, ((where >= low) & (where < high)).sum(axis=1))
    return counts
