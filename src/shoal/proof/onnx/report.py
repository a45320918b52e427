"""How far an integer graph is from its float model, and whether it still classifies like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.proof.graph.interpreter import run
from shoal.proof.onnx.calibrate import Sample
from shoal.proof.onnx.importer import Imported
from shoal.proof.onnx.model import Array


@dataclass(frozen=True, slots=True)
class Report:
    """Over all samples and outputs. rms: of the float outputs, to compare errors with.

    same_choice: share of samples whose largest output is the float model's. accuracies: of the float model and of the
    integer graph against labels, if there were any.
    """

    samples: int
    largest_error: float
    mean_error: float
    rms: float
    same_choice: float
    float_accuracy: float | None
    integer_accuracy: float | None


def compare(imported: Imported, samples: Sequence[Sample], labels: Sequence[int] | None = None) -> Report:
    """Runs both on every sample. OutOfRange for samples beyond the calibrated ranges."""
    pairs = [_outputs(imported, sample) for sample in samples]
    expected, found = (np.stack([pair[place] for pair in pairs]) for place in (0, 1))
    errors = np.abs(expected - found)
    choices = expected.argmax(axis=1), found.argmax(axis=1)
    return Report(
        len(samples),
        float(errors.max()),
        float(errors.mean()),
        float(np.sqrt((expected**2).mean())),
        float((choices[0] == choices[1]).mean()),
        None if labels is None else float((choices[0] == labels).mean()),
        None if labels is None else float((choices[1] == labels).mean()),
    )


def _outputs(imported: Imported, sample: Sample) -> tuple[Array, Array]:
    """First output of the float model and of the graph, flat."""
    values = run(imported.graph, imported.integers(sample))
    output = imported.graph.outputs[0]
    expected = np.asarray(imported.floats.run(sample)[imported.outputs[0]], np.float64)
    return expected.reshape(-1), imported.floats_of(output, values[output]).reshape(-1)
