"""A proof in files, checked: what `shoal prove verify` and `python -m shoal.proof` do. Needs neither torch nor onnx."""

from __future__ import annotations

from pathlib import Path

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.proof.artifacts import open_artifact, verify
from shoal.proof.artifacts_numbers import read_numbers
from shoal.proof.proofs import MOST_BYTES
from shoal.proof.verifier import Verified

DIGEST_BYTES = 32


def check_files(
    folder: Path, inputs: Path, outputs: Path, proof: Path, model: str | None = None
) -> tuple[str, Verified]:
    """The model's digest, and how sound the proof is. ProofRejected; another ShoalError where nothing was checked."""
    artifact = open_artifact(folder, None if model is None else read_digest(model), needs_weights=False)
    manifest = artifact.manifest
    given = read_numbers(inputs, manifest.inputs, "input")
    claimed = read_numbers(outputs, manifest.outputs, "output")
    return manifest.model, verify(artifact, given, claimed, read_proof(proof))


def in_words(model: str, verified: Verified) -> str:
    proven, conjectured = verified.bits_proven, verified.bits_conjectured
    return f"valid: model {model}\n{proven:.1f} bits proven, {conjectured:.1f} conjectured"


def read_digest(text: str) -> bytes:
    """A model's digest as people paste it. BadConfig if it is none."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != DIGEST_BYTES:
        raise BadConfig("model", f"expected a digest of {2 * DIGEST_BYTES} hexadecimal digits, found {text!r:.80}")
    return found


def read_proof(file: Path) -> bytes:
    """InvalidRequest for a file that cannot be read or is far too long; what is in it the verifier judges."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"{file}: expected a proof, found {error}", "proof") from error
    if len(data) > MOST_BYTES:
        raise InvalidRequest(f"{file}: expected at most {MOST_BYTES} bytes, found more", "proof")
    return data
