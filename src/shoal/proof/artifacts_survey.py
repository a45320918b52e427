"""Whether an ONNX model can be proven: every operator that cannot be, not only the first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import BadConfig, ShoalError
from shoal.proof.artifacts_compile import FLOAT_TYPES


@dataclass(frozen=True, slots=True)
class Survey:
    """operators: how many nodes of each. refused: a line for each node that cannot be proven, and why."""

    operators: dict[str, int]
    refused: list[str]


def survey(file: Path) -> Survey:
    """BadWeights for what is no ONNX model; Unsupported for shapes that are not fixed."""
    from shoal.proof.onnx.importer import OPERATORS
    from shoal.proof.onnx.model import read_model
    from shoal.proof.onnx.patterns import simplified

    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadConfig("model", f"expected an ONNX file, found {error}") from error
    model = read_model(data)
    operators = dict(sorted(Counter(node.op for node in model.nodes).items()))
    refused = [str(node.refuse("unknown operator")) for node in simplified(model).nodes if node.op not in OPERATORS]
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in model.model.graph.input}
    if not refused and all(kinds[name] in FLOAT_TYPES for name in model.inputs):
        refused += _tried(data)
    return Survey(operators, refused)


def _tried(data: bytes) -> list[str]:
    """What an import on random inputs refuses: attributes, shapes, ranges that could wrap."""
    from shoal.proof.lower.lower import lower
    from shoal.proof.onnx.calibrate import random_samples
    from shoal.proof.onnx.importer import import_model
    from shoal.proof.onnx.model import read_model
    from shoal.proof.onnx.precision import INT8

    try:
        lower(import_model(data, random_samples(read_model(data), -1.0, 1.0, 1), INT8).graph)
    except ShoalError as error:
        return [str(error)]
    return []
