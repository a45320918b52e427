"""An ONNX model as plain data: nodes in order, constants as arrays, static shapes. The only reader of it here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.core.errors import BadWeights, Unsupported
from shoal.proof.circuit import Shape

Array = npt.NDArray[Any]
Model = Any
"""onnx.ModelProto: the package is imported when a model is read, not before."""


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One node. Absent optional inputs are empty strings; attributes are Python and numpy values."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def refuse(self, what: str) -> Unsupported:
        """The error for something here that cannot be proven."""
        return Unsupported(f"node {self.name!r} ({self.op}): {what}")


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    constants: dict[str, Array]
    shapes: dict[str, Shape]
    model: Model


def read_model(source: Path | bytes) -> OnnxGraph:
    """Parses and checks a model.

    BadWeights for bytes that are no model; Unsupported for dynamic shapes (a symbolic batch becomes 1), nested graphs
    and operators of other domains.
    """
    model = _parsed(source)
    constants = {entry.name: _array(entry) for entry in model.graph.initializer}
    nodes = []
    for number, proto in enumerate(model.graph.node):
        node = _node(proto, number)
        if node.op == "Constant":
            constants[node.outputs[0]] = np.asarray(_constant_value(node))
        else:
            nodes.append(node)
    inputs = tuple(entry.name for entry in model.graph.input if entry.name not in constants)
    outputs = tuple(entry.name for entry in model.graph.output)
    return OnnxGraph(inputs, outputs, tuple(nodes), constants, _shapes(model), model)


def _parsed(source: Path | bytes) -> Model:
    """The model with all shapes inferred."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unsupported("reading ONNX needs the package onnx: pip install 'shoal[prove]'") from error

    name = "the model" if isinstance(source, bytes) else str(source)
    try:
        model = onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load(str(source))
        _fix_batch(model)
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (
        OSError,
        ValueError,
        DecodeError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadWeights(name, "onnx", "a valid ONNX model", reason) from error


def _array(entry: Any) -> Array:
    import onnx

    array: Array = onnx.numpy_helper.to_array(entry)
    return array


def _fix_batch(model: Model) -> None:
    """A symbolic first axis of an input is a batch: proofs are for one."""
    known = {entry.name for entry in model.graph.initializer}
    for entry in model.graph.input:
        for axis, size in enumerate(entry.type.tensor_type.shape.dim):
            if entry.name not in known and not size.dim_value:
                if axis:
                    raise Unsupported(
                        f"input {entry.name!r}: expected a fixed length of axis {axis}, found {size.dim_param!r}"
                    )
                size.dim_value = 1
    for entry in model.graph.output:
        for axis, size in enumerate(entry.type.tensor_type.shape.dim):
            if axis == 0 and not size.dim_value:
                size.dim_value = 1


def _shapes(model: Model) -> dict[str, Shape]:
    graph = model.graph
    entries = (*graph.input, *graph.value_info, *graph.output)
    return {e.name: tuple(size.dim_value for size in e.type.tensor_type.shape.dim) for e in entries}


def _node(proto: Any, number: int) -> OnnxNode:
    import onnx

    name = proto.name or f"{proto.op_type}_{number}"
    if proto.domain not in ("", "ai.onnx"):
        raise Unsupported(f"node {name!r}: operators of domain {proto.domain!r} are unknown here")
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in proto.attribute}
    if any(isinstance(value, onnx.GraphProto) for value in attributes.values()):
        raise Unsupported(f"node {name!r} ({proto.op_type}): graphs within nodes are not supported")
    plain = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
    return OnnxNode(proto.op_type, name, tuple(proto.input), tuple(proto.output), plain)


def _constant_value(node: OnnxNode) -> Array:
    import onnx

    for key in ("value_float", "value_int", "value_floats", "value_ints"):
        if key in node.attributes:
            return np.asarray(node.attributes[key])
    if "value" not in node.attributes:
        raise node.refuse(f"expected a dense constant, found {', '.join(node.attributes)}")
    return np.asarray(onnx.numpy_helper.to_array(node.attributes["value"]))
