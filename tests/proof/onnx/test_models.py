"""The models of the measurements: how many numbers they commit to, how exact they are, and their proofs."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from shoal.proof.lower.lower import Lowered, lower
from shoal.proof.onnx.calibrate import Sample, random_samples
from shoal.proof.onnx.importer import Imported, import_model
from shoal.proof.onnx.model import read_model
from shoal.proof.onnx.precision import INT8, Precision, wide
from shoal.proof.onnx.report import compare
from shoal.proof.prover import prove
from shoal.proof.rejected import ProofRejected
from shoal.proof.samples.glyphs import glyphs
from shoal.proof.samples.onnx_models import dense, gemm, trained_lenet
from shoal.proof.verifier import verify

DIGITS = glyphs(60, seed=7)
PICTURES: list[Sample] = [{"input": picture[None]} for picture in DIGITS.pictures]


def committed(lowered: Lowered) -> int:
    """Columns and multiplicities: the length of the vector a proof commits to."""
    columns = sum(prod(source.shape) for source in lowered.circuit.sources if source.kind == "witness")
    return columns + sum(len(table.columns[0]) for table in lowered.circuit.tables)


@pytest.fixture(scope="module", params=[INT8, wide(18)], ids=lambda precision: precision.name)
def lenet(request: pytest.FixtureRequest) -> Imported:
    return import_model(trained_lenet(), PICTURES[:20], request.param)


def test_lenet_commits_to_few_numbers(lenet: Imported) -> None:
    assert committed(lower(lenet.graph)) <= (1 << 14 if lenet.precision == INT8 else 1 << 15)


def test_lenet_is_as_right_as_its_float_model(lenet: Imported) -> None:
    report = compare(lenet, PICTURES[20:], DIGITS.labels[20:])
    assert report.float_accuracy is not None
    assert report.float_accuracy >= 0.95
    if lenet.precision == INT8:
        assert report.largest_error < 0.25 * report.rms
        assert report.same_choice >= 0.975
    else:
        assert report.largest_error < 2e-4 * report.rms
        assert report.integer_accuracy == report.float_accuracy
        assert report.same_choice == 1.0


def test_lenet_is_proven(lenet: Imported) -> None:
    """And the proof of one answer is none of another."""
    lowered = lower(lenet.graph)
    assignment = lowered.assign(lenet.integers(PICTURES[0]))
    proof = prove(lowered.circuit, lowered.weights, assignment.public, assignment.witness)
    assert verify(lowered.circuit, assignment.public, proof, lowered.weights).bits_proven >= 100
    output = f"output {lenet.graph.outputs[0]}"
    other = {**assignment.public, output: assignment.public[output][:, ::-1].copy()}
    with pytest.raises(ProofRejected):
        verify(lowered.circuit, other, proof, lowered.weights)


@pytest.mark.parametrize("precision", [INT8, wide(18)], ids=lambda precision: precision.name)
@pytest.mark.parametrize(("data", "most"), [(gemm(512), 0), (dense((512, 512, 512)), 5000)], ids=["gemm", "mlp"])
def test_dense_layers(data: bytes, most: int, precision: Precision) -> None:
    """A single product has nothing to commit to: its sums are the public output."""
    samples = random_samples(read_model(data), 0, 1, 4)
    imported = import_model(data, samples, precision)
    lowered = lower(imported.graph)
    assert committed(lowered) <= most
    report = compare(imported, samples)
    assert report.largest_error < (0.15 if precision == INT8 else 2e-4) * report.rms
    assignment = lowered.assign(imported.integers(samples[0]))
    proof = prove(lowered.circuit, lowered.weights, assignment.public, assignment.witness)
    assert verify(lowered.circuit, assignment.public, proof, lowered.weights).bits_proven >= 100
    forged = {name: values + (name.startswith("output")) for name, values in assignment.public.items()}
    with pytest.raises(ProofRejected):
        verify(lowered.circuit, forged, proof, lowered.weights)


def test_drawn_digits_are_the_same_for_the_same_seed() -> None:
    first, again = glyphs(5, seed=1), glyphs(5, seed=1)
    assert np.array_equal(first.pictures, again.pictures)
    assert first.labels.tolist() == again.labels.tolist()
    assert not np.array_equal(first.pictures, glyphs(5, seed=2).pictures)
    assert first.pictures.shape == (5, 1, 28, 28)
