"""`compile_model`: an ONNX model becomes a folder that proofs are made and checked with. The same bytes every time.

The package `onnx` is needed here and nowhere later. Nothing in the folder says when or where it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import __version__
from shoal.core.errors import BadConfig, InvalidRequest
from shoal.proof.artifacts import Artifact, Progress, ports_of, silent
from shoal.proof.artifacts_listing import listing
from shoal.proof.artifacts_manifest import FORMAT, MANIFEST, Manifest, Mode, file_digest, model_digest, to_json
from shoal.proof.artifacts_numbers import Numbers
from shoal.proof.digest import arrays_digest, circuit_digest
from shoal.proof.graph import store
from shoal.proof.lower.lower import Lowered, lower
from shoal.proof.plan import make_plan
from shoal.proof.statement import FIELD, PROTOCOL, VERSION, weights_digest
from shoal.proof.weights import commit_weights

if TYPE_CHECKING:
    from shoal.proof.onnx.calibrate import Sample
    from shoal.proof.onnx.importer import Imported
    from shoal.proof.onnx.model import OnnxGraph
    from shoal.proof.onnx.precision import Precision

STEPS = ("read", "round", "compare", "circuit", "weights", "write")
FLOAT_TYPES = (1, 10, 11)
"""float32, float16, float64 in ONNX."""


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """precision: None is 8 bits; see `onnx.precision`.

    calibration     inputs by name, a first axis of samples before the input's shape; None: `samples` random ones.
    low, high       range of random inputs.
    rounds_outputs  to the precision's scale; else outputs are the exact sums, which costs a prover less.
    """

    precision: Precision | None = None
    mode: Mode = "public"
    calibration: Numbers | None = None
    low: float = -1.0
    high: float = 1.0
    samples: int = 8
    rounds_outputs: bool = False


def compile_model(
    source: Path | bytes, folder: Path, options: CompileOptions | None = None, progress: Progress = silent
) -> Artifact:
    """Writes the folder and returns it opened.

    Unsupported by node and operator for what cannot be proven, BadWeights for what is no ONNX model, InvalidRequest for
    calibration inputs that do not fit, BadConfig for a folder that holds something else, OSError where it cannot write.
    """
    options = options or CompileOptions()
    _claim(folder)
    _step(progress, "read")
    data = source if isinstance(source, bytes) else _bytes_of(source)
    model, samples = _read(data, options)
    _step(progress, "round")
    imported = _import(data, samples, options)
    _step(progress, "compare")
    accuracy = _accuracy(imported, samples)
    _step(progress, "circuit")
    lowered = lower(imported.graph)
    _step(progress, "weights")
    weights = _weights(lowered, options.mode)
    _step(progress, "write")
    about = _about(data, lowered, imported, options, samples) | {"accuracy": accuracy}
    outputs = dict(zip(imported.outputs, imported.graph.outputs, strict=True))
    manifest = _write(folder, lowered, options.mode, weights, ({name: name for name in model.inputs}, outputs), about)
    progress("compile", len(STEPS), len(STEPS), "")
    return Artifact(manifest, lowered, True)


def _step(progress: Progress, name: str) -> None:
    progress("compile", STEPS.index(name), len(STEPS), name)


def _weights(lowered: Lowered, mode: Mode) -> bytes:
    """Their digest, or the root of a commitment to them."""
    if mode == "committed":
        return commit_weights(lowered.circuit, lowered.weights).root
    return weights_digest(lowered.weights)


def _claim(folder: Path) -> None:
    """Makes the folder; never writes among files of something else."""
    if folder.exists() and not folder.is_dir():
        raise BadConfig("out", f"expected a folder, found the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise BadConfig("out", f"expected an empty folder or an older artifact, found other files in {folder}")


def _bytes_of(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise BadConfig("model", f"expected an ONNX file, found {error}") from error


def _read(data: bytes, options: CompileOptions) -> tuple[OnnxGraph, Sequence[Sample]]:
    from shoal.proof.onnx.calibrate import random_samples
    from shoal.proof.onnx.model import read_model

    model = read_model(data)
    if options.calibration is not None:
        return model, given_samples(model, options.calibration)
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in model.model.graph.input}
    if whole := [name for name in model.inputs if kinds[name] not in FLOAT_TYPES]:
        raise InvalidRequest(f"input {whole[0]!r} takes no floats: give calibration inputs", "calibration")
    return model, random_samples(model, options.low, options.high, options.samples)


def samples_of(source: Path, options: CompileOptions) -> Sequence[Sample]:
    """The inputs that a model is calibrated on."""
    return _read(_bytes_of(source), options)[1]


def given_samples(model: OnnxGraph, arrays: Numbers) -> list[Sample]:
    """One sample for each entry of the first axis, which all arrays share."""
    if arrays.keys() != set(model.inputs):
        expected, found = ", ".join(model.inputs), ", ".join(arrays)
        raise InvalidRequest(f"calibration: expected arrays {expected}, found {found}", "calibration")
    for name, array in arrays.items():
        shape = model.shapes[name]
        if array.ndim == len(shape) and array.shape[1:] == shape[1:] and shape[0] == 1:
            continue  # samples along the batch's axis
        if array.shape[1:] != shape or not len(array):
            raise InvalidRequest(
                f"calibration: {name}: expected (samples, *{shape}), found {array.shape}", "calibration"
            )
    if any(array.dtype.kind not in "iuf" or not np.isfinite(array).all() for array in arrays.values()):
        raise InvalidRequest("calibration: expected finite numbers, found others", "calibration")
    if len({len(array) for array in arrays.values()}) != 1:
        raise InvalidRequest("calibration: expected as many samples of every input, found different", "calibration")
    count = len(next(iter(arrays.values())))
    return [{name: _one(arrays[name][place], model, name) for name in model.inputs} for place in range(count)]


def _one(array: Any, model: OnnxGraph, name: str) -> Any:
    entry = np.asarray(array).reshape(model.shapes[name])
    return entry.astype(np.float32) if entry.dtype.kind == "f" else entry


def _import(data: bytes, samples: Sequence[Sample], options: CompileOptions) -> Imported:
    from shoal.proof.onnx.importer import import_model
    from shoal.proof.onnx.precision import INT8

    return import_model(data, samples, options.precision or INT8, options.rounds_outputs)


def _accuracy(imported: Imported, samples: Sequence[Sample]) -> dict[str, Any]:
    """Against the float model, on the calibration inputs."""
    from shoal.proof.onnx.report import compare

    found = asdict(compare(imported, samples))
    return {name: value for name, value in found.items() if value is not None}


def _about(
    data: bytes, lowered: Lowered, imported: Imported, options: CompileOptions, samples: Sequence[Sample]
) -> dict[str, Any]:
    circuit, plan = lowered.circuit, make_plan(lowered.circuit, options.mode == "committed")
    arrays = {f"{place} {name}": np.asarray(x) for place, sample in enumerate(samples) for name, x in sample.items()}
    bits = {str(name): np.ascontiguousarray(x).view(f"<i{x.dtype.itemsize}") for name, x in arrays.items()}
    return {
        "made by": f"shoal {__version__}",
        "protocol": {"name": PROTOCOL, "version": VERSION, "field": FIELD},
        "onnx": {"sha256": _sha256(data), "bytes": len(data)},
        "precision": imported.precision.name,
        "calibration": {"samples": len(samples), "given": options.calibration is not None,
                        "digest": arrays_digest(bits).hex()},
        "circuit": {
            "lookups": sum(int(np.prod(lookup.space)) for lookup in circuit.lookups),
            "identities": len(circuit.identities),
            "tables": len(circuit.tables),
            "committed numbers": 0 if plan.witness is None else plan.witness.packed.plan.length,
            "weights": sum(int(array.size) for array in lowered.weights.values()),
        },
        "bits": {"proven": round(plan.errors.proven, 1), "conjectured": round(plan.errors.conjectured, 1)},
    }  # fmt: skip


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _write(
    folder: Path,
    lowered: Lowered,
    mode: Mode,
    weights: bytes,
    names: tuple[Mapping[str, str], Mapping[str, str]],
    about: dict[str, Any],
) -> Manifest:
    inputs, outputs = ports_of(lowered, *names)
    (folder / MANIFEST).unlink(missing_ok=True)  # until the rest is written there is no artifact
    store.save(lowered.graph, folder)
    (folder / "circuit.txt").write_text(listing(lowered.circuit))
    graph = store.digest(store.without_weights(lowered.graph))
    written = sorted(("graph.json", "circuit.txt", *store.FILES))
    manifest = Manifest(
        format=FORMAT,
        mode=mode,
        model=model_digest(mode, graph, weights, (inputs, outputs)).hex(),
        graph=graph.hex(),
        circuit=circuit_digest(lowered.circuit).hex(),
        weights=weights.hex(),
        inputs=inputs,
        outputs=outputs,
        files={name: file_digest(folder / name) for name in written},
        about=about,
    )
    (folder / MANIFEST).write_text(to_json(manifest))
    return manifest
