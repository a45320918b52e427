"""What the float model computes: ranges of all tensors on samples, and outputs to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.proof.onnx.model import Array, OnnxGraph

Sample = Mapping[str, Array]
"""Input name -> floats (or token ids) of the input's shape."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Smallest and largest value seen."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        return max(abs(self.low), abs(self.high))


class FloatModel:
    """The model run by ONNX's own reference evaluator; every tensor can be asked for."""

    def __init__(self, graph: OnnxGraph) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        self.names = [name for node in graph.nodes for name in node.outputs if name]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names)
        self._evaluator = ReferenceEvaluator(model)
        self._inputs = graph.inputs

    def run(self, sample: Sample) -> dict[str, Array]:
        """Every tensor a node makes, and the inputs."""
        feed = {name: np.asarray(sample[name]) for name in self._inputs}
        return feed | dict(zip(self.names, self._evaluator.run(None, feed), strict=True))


def extents(model: FloatModel, samples: Sequence[Sample]) -> dict[str, Extent]:
    """Ranges of all float tensors over the samples."""
    found: dict[str, Extent] = {}
    for sample in samples:
        for name, value in model.run(sample).items():
            if value.size and value.dtype.kind == "f":
                old = found.get(name, Extent(np.inf, -np.inf))
                found[name] = Extent(min(old.low, float(value.min())), max(old.high, float(value.max())))
    return found


def random_samples(graph: OnnxGraph, low: float, high: float, count: int = 8, seed: int = 0) -> list[Sample]:
    """Uniform inputs in a declared range, for models without data."""
    rng = np.random.default_rng(seed)
    return [
        {name: rng.uniform(low, high, graph.shapes[name]).astype(np.float32) for name in graph.inputs}
        for _ in range(count)
    ]
