"""Compiled models in folders: what is proven about, how answers are made and proven, and how proofs are checked.

    DIR/manifest.json   hashes, names, shapes, scales, bits (`artifacts_manifest`)
        graph.json      the integer graph; with constants.npz, weights.npz its numbers
        circuit.txt     every constraint as a formula, for people (`artifacts_listing`)

`artifacts_compile.compile_model` writes them, the same bytes every time. A verifier loads graph.json and constants.npz,
makes the circuit itself, and needs weights.npz only where the weights are public; with mode "committed" it may be
absent, and the model's digest vouches for all the rest. Files: artifacts_manifest, artifacts_numbers (inputs and
outputs), artifacts_listing, artifacts_compile, this one.

What this does not protect against: a digest from the wrong hands. It says which integer graph was proven; that the
graph stands for a certain ONNX model is seen by compiling that again, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.core.errors import BadWeights
from shoal.proof.artifacts_manifest import Manifest, Port, check_file, model_digest, read_manifest
from shoal.proof.artifacts_numbers import Numbers, from_claim, to_integers, to_numbers
from shoal.proof.digest import circuit_digest
from shoal.proof.graph import store
from shoal.proof.graph.ir import Ints
from shoal.proof.lower.lower import Lowered, lower, public_name
from shoal.proof.statement import weights_digest
from shoal.proof.verifier import Verified
from shoal.proof.verifier import verify as verify_circuit

if TYPE_CHECKING:
    from shoal.proof.weights import CommittedWeights

Progress = Callable[[str, int, int, str], None]
"""(phase, steps done, steps in all, a few words)."""


def silent(phase: str, done: int, total: int, words: str) -> None:
    """A Progress for nobody."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled model, opened. has_weights: their numbers were loaded too."""

    manifest: Manifest
    lowered: Lowered
    has_weights: bool

    @property
    def digest(self) -> bytes:
        """32 bytes that name the model."""
        return bytes.fromhex(self.manifest.model)

    @property
    def root(self) -> bytes | None:
        """Of the weights' commitment; None where weights are public."""
        return bytes.fromhex(self.manifest.weights) if self.manifest.mode == "committed" else None


@dataclass(frozen=True, slots=True)
class Proven:
    """outputs: by the model's names, exactly the integers' values. proof: for `verify`, and nobody has to keep it."""

    outputs: Numbers
    proof: bytes


def open_artifact(folder: Path, model: bytes | None = None, needs_weights: bool = True) -> Artifact:
    """Loads what is needed, compares every digest with what it is of, and makes the circuit.

    model: the digest it must have; None: the manifest's is believed. needs_weights: to prove, or to verify where they
    are public (then they are loaded in any case). BadWeights names the file that is missing, broken or another one.
    """
    manifest = read_manifest(folder)
    with_weights = needs_weights or manifest.mode == "public"
    for name in ("graph.json", "constants.npz", *(["weights.npz"] if with_weights else [])):
        check_file(folder, manifest, name)
    lowered = lower(store.load(folder, with_weights))
    artifact = Artifact(manifest, lowered, with_weights)
    _check_digests(folder, artifact)
    if model is not None and model != artifact.digest:
        raise BadWeights(str(folder), "model", f"digest {model.hex()}", f"{manifest.model}: another model")
    return artifact


def answer(artifact: Artifact, inputs: Numbers) -> Numbers:
    """What the integer graph gives: outputs by the model's names. InvalidRequest or OutOfRange for inputs beyond it."""
    manifest = artifact.manifest
    public = artifact.lowered.assign(to_integers(manifest.inputs, inputs)).public
    return to_numbers(manifest.outputs, _outputs(manifest, public))


def prove(artifact: Artifact, inputs: Numbers, progress: Progress = silent) -> Proven:
    """Runs the integer graph and proves what it gave, by the artifact's mode.

    Raises InvalidRequest or OutOfRange for inputs outside the calibrated ranges: nothing is clipped in silence.
    """
    from shoal.proof.prover import prove as prove_circuit

    manifest, lowered = artifact.manifest, artifact.lowered
    steps = 3 if manifest.mode == "committed" else 2
    progress("prove", 0, steps, "witness")
    assignment = lowered.assign(to_integers(manifest.inputs, inputs))
    outputs = to_numbers(manifest.outputs, _outputs(manifest, assignment.public))
    if steps == 3:
        progress("prove", 1, steps, "weights")
    committed = committed_weights(artifact)
    progress("prove", steps - 1, steps, "proof")
    proof = prove_circuit(lowered.circuit, lowered.weights, assignment.public, assignment.witness, committed)
    progress("prove", steps, steps, "")
    return Proven(outputs, proof)


def committed_weights(artifact: Artifact) -> CommittedWeights | None:
    """The commitment made again, as a prover needs it; None where weights are public."""
    from shoal.proof.weights import commit_weights

    if artifact.root is None:
        return None
    made = commit_weights(artifact.lowered.circuit, artifact.lowered.weights)
    if made.root != artifact.root:
        raise BadWeights("weights.npz", "root", artifact.manifest.weights, made.root.hex())
    return made


def verify(artifact: Artifact, inputs: Numbers, outputs: Numbers, proof: bytes) -> Verified:
    """How sound the proof is that the model gives these outputs for these inputs, or ProofRejected.

    InvalidRequest for inputs that the model does not take. The graph is not run.
    """
    manifest, lowered = artifact.manifest, artifact.lowered
    public = dict(to_integers(manifest.inputs, inputs))
    for tensor, entries in from_claim(manifest.outputs, outputs).items():
        public[public_name(tensor)] = entries
    weights = lowered.weights if artifact.root is None else None
    return verify_circuit(lowered.circuit, public, proof, weights, artifact.root)


def ports_of(lowered: Lowered, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> tuple[tuple[Port, ...], ...]:
    """inputs, outputs: the model's names -> tensors of the graph."""
    tensors = lowered.graph.tensors
    return tuple(
        tuple(
            Port(name, tensor, (of := tensors[tensor]).shape, of.fraction, of.low, of.high)
            for name, tensor in side.items()
        )
        for side in (inputs, outputs)
    )


def _outputs(manifest: Manifest, public: Mapping[str, Ints]) -> dict[str, Ints]:
    return {port.tensor: public[public_name(port.tensor)] for port in manifest.outputs}


def _check_digests(folder: Path, artifact: Artifact) -> None:
    """Everything the manifest says about graph, circuit, weights, ports and model, computed again."""
    manifest, lowered = artifact.manifest, artifact.lowered
    graph = store.digest(store.without_weights(lowered.graph))
    given = [{port.name: port.tensor for port in side} for side in (manifest.inputs, manifest.outputs)]
    known = set(given[0].values()) == set(lowered.graph.inputs), set(given[1].values()) == set(lowered.graph.outputs)
    ports = ports_of(lowered, *given) if all(known) else None
    found = {
        "inputs and outputs": (ports, (manifest.inputs, manifest.outputs)),
        "graph": (graph.hex(), manifest.graph),
        "circuit": (circuit_digest(lowered.circuit).hex(), manifest.circuit),
    }
    if artifact.has_weights and manifest.mode == "public":
        found["weights"] = (weights_digest(lowered.weights).hex(), manifest.weights)
    named = model_digest(manifest.mode, graph, bytes.fromhex(manifest.weights), (manifest.inputs, manifest.outputs))
    found["model"] = (named.hex(), manifest.model)
    for field, (is_now, was) in found.items():
        if is_now != was:
            raise BadWeights(str(folder / "manifest.json"), field, str(is_now), str(was))
