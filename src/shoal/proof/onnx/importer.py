"""`import_model`: an ONNX model and samples become an integer graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.proof.graph.ir import Graph, Ints
from shoal.proof.graph.ranges import Range
from shoal.proof.onnx import curves, linear, norms, pooling, shapes
from shoal.proof.onnx.calibrate import Extent, FloatModel, Sample, extents
from shoal.proof.onnx.model import Array, OnnxGraph, OnnxNode, read_model
from shoal.proof.onnx.patterns import simplified
from shoal.proof.onnx.precision import Precision
from shoal.proof.onnx.quantiser import Quantiser
from shoal.proof.onnx.values import Narrow, Value

Importer = Callable[[Quantiser, OnnxNode], Value]

OPERATORS: dict[str, Importer] = {
    "Gemm": linear.gemm,
    "MatMul": linear.matmul,
    "Conv": linear.conv,
    "BatchNormalization": linear.batch_norm,
    "Relu": pooling.relu,
    "Clip": pooling.clip,
    "MaxPool": pooling.max_pool,
    "AveragePool": pooling.average_pool,
    "GlobalAveragePool": pooling.global_average_pool,
    "Flatten": shapes.reshape,
    "Reshape": shapes.reshape,
    "Squeeze": shapes.reshape,
    "Unsqueeze": shapes.reshape,
    "Transpose": shapes.transpose,
    "Concat": shapes.concat,
    "Gather": shapes.gather,
    "Slice": shapes.slice_,
    "Identity": shapes.same,
    "Dropout": shapes.same,
    "Softmax": norms.softmax,
    "LayerNormalization": norms.layer_norm,
    "RMSNormalization": norms.rms_norm,
    **dict.fromkeys(curves.BINARY, curves.binary),
    **dict.fromkeys((*curves.UNARY, *curves.LINEAR, "Gelu", "LeakyRelu", "Elu", "HardSigmoid"), curves.unary),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """The integer graph, the float model it stands for, and the precision it was made in.

    outputs: the ONNX names of the graph's outputs, in their order.
    """

    graph: Graph
    floats: FloatModel
    precision: Precision
    outputs: tuple[str, ...]

    def integers(self, sample: Sample) -> dict[str, Ints]:
        """A float sample in the graph's input scales."""
        return {name: self._input(name, np.asarray(sample[name])) for name in self.graph.inputs}

    def _input(self, name: str, value: Array) -> Ints:
        if value.dtype.kind in "iu":
            return value.astype(np.int64)
        entries: Ints = np.rint(value.astype(np.float64) * 2.0 ** self.graph.tensors[name].fraction).astype(np.int64)
        return entries

    def floats_of(self, tensor: str, entries: Ints) -> Array:
        """Integers of a tensor as the numbers they stand for."""
        result: Array = entries.astype(np.float64) * 2.0 ** -self.graph.tensors[tensor].fraction
        return result


def import_model(
    source: Path | bytes, samples: Sequence[Sample], precision: Precision, rounds_outputs: bool = False
) -> Imported:
    """Reads, calibrates on `samples` (at least one), and rounds.

    rounds_outputs: to the precision's scale, like every tensor in between; else they stay sums of products, exact.
    Unsupported with node, operator and reason for what cannot be proven; InvalidRequest if there is no sample.
    """
    if not samples:
        raise InvalidRequest("expected at least one sample to calibrate on, found none", "samples")
    graph = simplified(read_model(source))
    floats = FloatModel(graph)
    quantiser = Quantiser(graph, extents(floats, samples), precision)
    for name in graph.inputs:
        quantiser.values[name] = _declare_input(quantiser, graph, name)
    for node in graph.nodes:
        _import_node(quantiser, node)
    outputs = tuple(_output(quantiser, name, rounds_outputs) for name in graph.outputs)
    return Imported(quantiser.builder.finish(outputs), floats, precision, graph.outputs)


def _import_node(q: Quantiser, node: OnnxNode) -> None:
    if node.op not in OPERATORS:
        known = ", ".join(sorted(OPERATORS))
        raise node.refuse(f"this operator cannot be proven; known are {known}")
    if unknown := [name for name in node.inputs if name and name not in q.values]:
        raise node.refuse(f"input {unknown[0]!r} is an output that no node here makes")
    try:
        q.values[node.outputs[0]] = OPERATORS[node.op](q, node)
    except BadConfig as error:
        raise node.refuse(str(error)) from error


def _output(q: Quantiser, name: str, is_rounded: bool) -> str:
    """The output's tensor; what was left pending until now is refused in its node's name."""
    try:
        return q.narrow(name) if is_rounded else q.sum_of(name)
    except BadConfig as error:
        raise next(node for node in q.graph.nodes if name in node.outputs).refuse(str(error)) from error


def _declare_input(q: Quantiser, graph: OnnxGraph, name: str) -> Value:
    shape = graph.shapes[name]
    if name not in q.extents:
        return Narrow(q.builder.input(name, shape, Range(0, (1 << 31) - 1)))
    extent: Extent = q.extent(name)
    fraction = q.precision.fraction_of(extent.largest)
    return Narrow(q.builder.input(name, shape, q.precision.within(extent.low, extent.high, fraction), fraction))
