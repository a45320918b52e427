"""Compiled models: the same bytes twice, proofs that hold for what they say and nothing else, changed files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.core.errors import BadConfig, BadWeights, InvalidRequest, Unsupported
from shoal.proof.artifacts import Artifact, answer, open_artifact, prove, verify
from shoal.proof.artifacts_compile import CompileOptions, compile_model
from shoal.proof.artifacts_numbers import Numbers, read_numbers, write_numbers
from shoal.proof.onnx.precision import wide
from shoal.proof.rejected import ProofRejected
from shoal.proof.samples.onnx_models import dense

MODEL = dense((12, 8, 5), seed=3)
X = np.random.default_rng(1).uniform(-1, 1, (1, 12)).astype(np.float32)
MODES = ("public", "committed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One artifact of each mode, and one of another model."""
    root = tmp_path_factory.mktemp("artifacts")
    for mode in MODES:
        compile_model(MODEL, root / mode, CompileOptions(mode=mode, rounds_outputs=mode == "committed"))  # type: ignore[arg-type]
    compile_model(dense((12, 8, 5), seed=4), root / "other")
    return {name: root / name for name in (*MODES, "other")}


@pytest.fixture(scope="module")
def opened(folders: dict[str, Path]) -> dict[str, Artifact]:
    return {name: open_artifact(folder) for name, folder in folders.items()}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("mode", MODES)
def test_compiled_twice_is_the_same_to_the_byte(folders: dict[str, Path], mode: str, tmp_path: Path) -> None:
    options = CompileOptions(mode=mode, rounds_outputs=mode == "committed")  # type: ignore[arg-type]
    again = compile_model(MODEL, tmp_path / "elsewhere" / "again", options)
    assert tree(tmp_path / "elsewhere" / "again") == tree(folders[mode])
    assert set(tree(folders[mode])) == {"manifest.json", "graph.json", "constants.npz", "weights.npz", "circuit.txt"}
    assert again.digest.hex() in (folders[mode] / "manifest.json").read_text()


def test_every_choice_is_another_model() -> None:
    def digest(name: str, tmp: Path, **options: object) -> bytes:
        return compile_model(MODEL, tmp / name, CompileOptions(**options)).digest  # type: ignore[arg-type]

    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        tmp = Path(scratch)
        found = {
            digest("a", tmp),
            digest("b", tmp, mode="committed"),
            digest("c", tmp, rounds_outputs=True),
            digest("d", tmp, precision=wide(12)),
        }
    assert len(found) == 4


@pytest.mark.parametrize("mode", MODES)
def test_a_proof_holds_for_its_answer_only(opened: dict[str, Artifact], mode: str) -> None:
    artifact, inputs = opened[mode], {"input": X}
    made = prove(artifact, inputs)
    assert np.array_equal(np.asarray(answer(artifact, inputs)["output"]), made.outputs["output"])
    assert verify(artifact, inputs, made.outputs, made.proof).bits_proven >= 100
    step = 2.0 ** -artifact.manifest.outputs[0].fraction
    for place in range(5):
        wrong = made.outputs["output"].copy()
        wrong[0, place] += step
        with pytest.raises(ProofRejected):
            verify(artifact, inputs, {"output": wrong}, made.proof)
    with pytest.raises(ProofRejected):
        verify(artifact, {"input": -X}, made.outputs, made.proof)
    other = opened["other"]
    with pytest.raises(ProofRejected):
        verify(other, inputs, made.outputs, made.proof)


def test_outputs_no_model_could_give_are_a_false_claim(opened: dict[str, Artifact]) -> None:
    artifact, inputs = opened["public"], {"input": X}
    made = prove(artifact, inputs)
    between = made.outputs["output"] + 2.0 ** -(artifact.manifest.outputs[0].fraction + 1)
    for claim in (between, made.outputs["output"] + 1e9):
        with pytest.raises(ProofRejected, match=r"output\[0, 0\]: expected a multiple of 2\^-"):
            verify(artifact, inputs, {"output": claim}, made.proof)


VERIFIER = """
import sys
from shoal.proof.__main__ import main
code = main(sys.argv[1:])
print(*sorted({name.split(".")[0] for name in sys.modules} & {"torch", "onnx", "typer", "rich", "pydantic", "httpx"}))
sys.exit(code)
"""


def test_the_verifier_alone_with_nothing_but_a_digest(opened: dict[str, Artifact], folders: dict[str, Path],
                                                      tmp_path: Path) -> None:  # fmt: skip
    """Committed weights: the folder goes without weights.npz; the digest is all that is believed."""
    artifact, folder = opened["committed"], tmp_path / "known"
    shutil.copytree(folders["committed"], folder)
    (folder / "weights.npz").unlink()
    made = prove(artifact, {"input": X})
    write_numbers(tmp_path / "in.json", {"input": X.astype(np.float64)})
    write_numbers(tmp_path / "out.npz", made.outputs)
    (tmp_path / "proof").write_bytes(made.proof)
    (tmp_path / "bad").write_bytes(made.proof[:-1])

    def alone(proof: str, digest: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(Path(shoal.__file__).parent.parent), *(path for path in sys.path if path)])
        files = [str(tmp_path / name) for name in ("known", "in.json", "out.npz", proof)]
        return subprocess.run([sys.executable, "-O", "-c", VERIFIER, *files, digest], capture_output=True, text=True,
                              timeout=60, env={"PYTHONPATH": paths, "HOME": str(tmp_path), "PATH": ""})  # fmt: skip

    valid = alone("proof", artifact.digest.hex())
    assert (valid.returncode, valid.stdout.splitlines()[0]) == (0, f"valid: model {artifact.digest.hex()}"), (
        valid.stderr
    )
    assert valid.stdout.splitlines()[-1] == ""  # none of the modules it must do without
    invalid = alone("bad", artifact.digest.hex())
    assert (invalid.returncode, invalid.stdout[:8]) == (1, "INVALID:")
    unusable = alone("proof", opened["public"].digest.hex())
    assert unusable.returncode == 2
    assert "another model" in unusable.stderr


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["graph.json", "constants.npz", "weights.npz"])
def test_a_changed_file_is_named(folders: dict[str, Path], tmp_path: Path, mode: str, name: str) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(folders[mode], folder)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BadWeights, match=rf"{name}: digest: expected \d+ bytes"):
        open_artifact(folder)
    (folder / name).unlink()
    with pytest.raises(BadWeights, match=name):
        open_artifact(folder)


def test_every_field_of_the_manifest_is_read_strictly_or_computed_again(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(folders["public"], folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    zeros = "00" * 32

    def refused(**changes: object) -> str:
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(BadWeights) as error:
            open_artifact(folder)
        return str(error.value)

    for field in ("model", "graph", "circuit", "weights"):
        assert f"{field}: expected" in refused(**{field: zeros})
        assert field in refused(**{field: "no digest"})
    port = manifest["inputs"][0]
    assert "inputs and outputs" in refused(inputs=[{**port, "high": port["high"] + 1}])
    assert "model: expected" in refused(inputs=[{**port, "name": "renamed"}])
    assert "mode" in refused(mode="private")
    assert "model" in refused(mode="committed")
    assert "format" in refused(format="shoal proof artifact 0")
    assert "manifest" in refused(more=1)
    assert "graph.json" in refused(files={})
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BadWeights, match=r"manifest\.json"):
        open_artifact(folder)


def test_weights_that_are_not_those_of_the_root_prove_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    """The weights' file is exchanged and its hash in the manifest with it: the root does not fit."""
    folder = tmp_path / "exchanged"
    shutil.copytree(folders["committed"], folder)
    from shoal.proof.artifacts_manifest import file_digest

    with np.load(folder / "weights.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    first = arrays["a1"].reshape(-1)
    first[0] -= np.sign(first[0])
    np.savez(folder / "weights.npz", **arrays)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["weights.npz"] = file_digest(folder / "weights.npz")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadWeights, match="root"):
        prove(open_artifact(folder), {"input": X})


def test_numbers_in_files(opened: dict[str, Artifact], tmp_path: Path) -> None:
    ports = opened["public"].manifest.inputs

    def read(name: str, text: str) -> Numbers:
        (tmp_path / name).write_text(text)
        return read_numbers(tmp_path / name, ports, "input")

    assert read("flat.json", json.dumps({"input": X.reshape(-1).tolist()}))["input"].shape == (1, 12)
    write_numbers(tmp_path / "x.npz", {"input": X})
    assert np.array_equal(read_numbers(tmp_path / "x.npz", ports, "input")["input"], X)
    bad = {
        "{": "expected numbers in JSON or .npz",
        "[1]": "expected a map",
        '{"output": [1]}': "expected input, found output",
        '{"input": [1, 2]}': r"expected shape \(1, 12\), found \(2,\)",
        '{"input": [[1], [1, 2]]}': "lists of several lengths",
        '{"input": [' + "0, " * 11 + "NaN]}": r"\[0, 11\]: expected a finite number, found nan",
        '{"input": "text"}': "expected numbers",
    }
    for text, words in bad.items():
        with pytest.raises(InvalidRequest, match=words):
            read("bad.json", text)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InvalidRequest, match=r"bad\.npz"):
        read_numbers(tmp_path / "bad.npz", ports, "input")


def test_inputs_beyond_the_calibration_are_refused_not_clipped(opened: dict[str, Artifact]) -> None:
    with pytest.raises(
        InvalidRequest, match=r"input\[0, 0\]: expected -4 to 3.98438, found 100: compile with calibration"
    ):
        answer(opened["public"], {"input": np.full((1, 12), 100.0)})


def test_folders_and_calibrations_that_will_not_do(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a file of mine")
    with pytest.raises(BadConfig, match="expected an empty folder or an older artifact"):
        compile_model(MODEL, tmp_path)
    with pytest.raises(BadConfig, match="expected a folder, found the file"):
        compile_model(MODEL, tmp_path / "mine")
    for arrays, words in (
        ({"x": np.zeros((2, 12))}, "expected arrays input, found x"),
        ({"input": np.zeros((2, 7))}, r"expected \(samples, \*\(1, 12\)\), found \(2, 7\)"),
        ({"input": np.full((2, 12), np.nan)}, "finite"),
        ({"input": np.zeros((0, 1, 12))}, "samples"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            compile_model(MODEL, tmp_path / "new", CompileOptions(calibration=arrays))
    with pytest.raises(BadWeights, match="a valid ONNX model"):
        compile_model(b"no model", tmp_path / "new")


def test_an_operator_nobody_can_prove_is_refused_by_name_and_place(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"node 'my_det' \(Det\)"):
        compile_model(unsupported(), tmp_path / "new")


def unsupported() -> bytes:
    import onnx
    import onnx.helper as make

    value = make.make_tensor_value_info
    graph = make.make_graph(
        [make.make_node("Relu", ["input"], ["h"], "relu"), make.make_node("Det", ["h"], ["output"], "my_det")],
        "m", [value("input", onnx.TensorProto.FLOAT, (2, 2))], [value("output", onnx.TensorProto.FLOAT, ())],
    )  # fmt: skip
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8).SerializeToString()
