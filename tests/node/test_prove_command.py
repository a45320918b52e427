"""`shoal prove`: done or valid is 0, invalid is 1, unusable is 2, and the words say what was wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as make
import pytest

from shoal.node.cli import main
from shoal.proof.samples.onnx_models import dense

X = [[round(number, 3) for number in np.linspace(-1, 1, 12).tolist()]]
UNSET = "00" * 32


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its artifacts (a, and another model's: b), an input, an output and a proof."""
    folder = tmp_path_factory.mktemp("prove")
    (folder / "m.onnx").write_bytes(dense((12, 8, 5), seed=3))
    (folder / "other.onnx").write_bytes(dense((12, 8, 5), seed=4))
    (folder / "in.json").write_text(json.dumps({"input": X}))
    np.savez(folder / "samples.npz", input=np.random.default_rng(0).uniform(-1, 1, (4, 1, 12)))
    for name, model in (("a", "m.onnx"), ("b", "other.onnx")):
        assert run(folder, "compile", model, "--out", name, "--calibration", "samples.npz") == 0
    assert run(folder, "prove", "a", "in.json", "--proof", "proof", "--output", "out.json") == 0
    return folder


def run(folder: Path, command: str, *arguments: str) -> int:
    """Arguments that name files of the folder stand for them."""
    known = {"--out", "--proof", "--output", "--calibration"}
    placed, is_path = [], False
    for argument in arguments:
        is_path = is_path or (not argument.startswith("-") and (folder / argument).exists())
        placed.append(str(folder / argument) if is_path else argument)
        is_path = argument in known
    return main(["prove", command, *placed])


def test_the_whole_way(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work, "check", "m.onnx") == 0
    assert "it can be proven" in capsys.readouterr().out
    assert run(work, "witness", "a", "in.json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((work / "out.json").read_text())
    assert run(work, "verify", "a", "in.json", "out.json", "proof") == 0
    told = capsys.readouterr()
    model = json.loads((work / "a" / "manifest.json").read_text())["model"]
    assert told.out.startswith(f"valid: model {model}\n")
    assert "bits proven" in told.out
    assert run(work, "verify", "a", "in.json", "out.json", "proof", "--model", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["valid"]
    assert found["bits"]["proven"] >= 100


def test_committed_weights_in_the_wide_mode(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--calibration", "samples.npz", "--mode", "wide", "--fraction", "12", "--commit", "--json")
    assert run(work, "compile", "m.onnx", "--out", "c", *options) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "wide12"
    assert run(work, "prove", "c", "in.json", "--proof", "c.proof", "--output", "c.npz") == 0
    (work / "c" / "weights.npz").unlink()
    assert run(work, "verify", "c", "in.json", "c.npz", "c.proof") == 0
    assert run(work, "verify", "a", "in.json", "out.json", "c.proof") == 1
    capsys.readouterr()
    assert run(work, "witness", "c", "in.json") == 2
    assert "weights.npz: file: expected" in capsys.readouterr().err


def test_bench(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work, "bench", "m.onnx", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in rows] == ["compile", "load", "witness", "prove", "verify"]
    assert rows[3]["size"] == (work / "proof").stat().st_size
    assert run(work, "bench", "m.onnx") == 0
    assert "peak MB" in capsys.readouterr().out


def changed(work: Path, name: str, text: str | bytes) -> str:
    (work / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def test_false_claims_and_false_proofs_are_invalid(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof, out = (work / "proof").read_bytes(), json.loads((work / "out.json").read_text())
    out["output"][0][2] += 2.0**-8
    flipped = bytearray(proof)
    flipped[len(proof) // 2] ^= 4
    claims = {
        ("a", "in.json", changed(work, "wrong.json", json.dumps(out)), "proof"): "INVALID: ",
        ("a", "in.json", "out.json", changed(work, "short", proof[:-7])): "INVALID: ",
        ("a", "in.json", "out.json", changed(work, "flipped", bytes(flipped))): "INVALID: ",
        ("b", "in.json", "out.json", "proof"): "INVALID: ",
        ("a", "in.json", changed(work, "huge.json", json.dumps({"output": [[1e9] * 5]})), "proof"): "INVALID: output: ",
    }
    for arguments, words in claims.items():
        assert run(work, "verify", *arguments) == 1, arguments
        assert words in capsys.readouterr().out
    assert run(work, "verify", "a", "in.json", "wrong.json", "proof", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["check"] != "") == (False, True)


def unsupported() -> bytes:
    value = make.make_tensor_value_info
    nodes = [
        make.make_node("Relu", ["input"], ["h"], "relu"),
        make.make_node("Erf", ["h"], ["e"], "erf_1"),
        make.make_node("Det", ["e"], ["d"], "my_det"),
        make.make_node("Det", ["h"], ["d2"], "det_2"),
        make.make_node("Add", ["d", "d2"], ["output"], "sum"),
    ]
    sizes = ((2, 2), ())
    ports = [value(name, onnx.TensorProto.FLOAT, shape) for name, shape in zip(("input", "output"), sizes, strict=True)]
    graph = make.make_graph(nodes, "m", ports[:1], ports[1:])
    data: bytes = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return data


def test_what_cannot_be_proven_is_listed_by_name_and_place(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(work, "det.onnx", unsupported())
    assert run(work, "check", "det.onnx") == 1
    told = capsys.readouterr().out
    assert "✗ node 'my_det' (Det)" in told
    assert "✗ node 'det_2' (Det)" in told
    assert "it cannot be proven" in told
    assert run(work, "compile", "det.onnx", "--out", "never") == 2
    assert "(Det)" in capsys.readouterr().err


BAD = [
    (("check", "in.json"), "a valid ONNX model"),
    (("compile", "in.json", "--out", "x"), "a valid ONNX model"),
    (("compile", "nowhere.onnx", "--out", "x"), "expected an ONNX file, found"),
    (("compile", "m.onnx", "--out", "in.json"), "expected a folder, found the file"),
    (("compile", "m.onnx", "--out", "m.onnx/x"), "Not a directory"),
    (("compile", "m.onnx", "--out", "x", "--mode", "int4"), "expected int8 or wide, found 'int4'"),
    (("compile", "m.onnx", "--out", "x", "--low", "2"), "expected less than --high 1, found 2"),
    (("compile", "m.onnx", "--out", "x", "--calibration", "shape.json"), "expected (samples, *(1, 12)), found (2,)"),
    (("witness", "nowhere", "in.json"), "no folder"),
    (("witness", "a", "out.json"), "expected input, found output"),
    (("witness", "a", "shape.json"), "expected shape (1, 12), found (2,)"),
    (("witness", "a", "nan.json"), "expected a finite number, found nan"),
    (("witness", "a", "far.json"), "compile with calibration inputs like this one"),
    (("witness", "a", "nowhere.json"), "nowhere.json"),
    (("prove", "a", "in.json", "--proof", "no/such/folder"), "expected a folder to write to, found none at "),
    (("verify", "tampered", "in.json", "out.json", "proof"), "weights.npz: digest: expected"),
    (("verify", "a", "in.json", "out.json", "nowhere"), "expected a proof, found"),
    (("verify", "a", "in.json", "out.json", "proof", "--model", UNSET), "another model"),
    (("verify", "a", "in.json", "out.json", "proof", "--model", "zz"), "expected a digest of 64 hexadecimal digits"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_what_cannot_be_used_says_why(
    work: Path, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(work, "shape.json", '{"input": [1, 2]}')
    changed(work, "nan.json", '{"input": [' + "0, " * 11 + "NaN]}")
    changed(work, "far.json", '{"input": [' + "0, " * 11 + "1e6]}")
    (work / "tampered").mkdir(exist_ok=True)
    for file in (work / "a").iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= file.name == "weights.npz"
        (work / "tampered" / file.name).write_bytes(data)
    assert run(work, *arguments) == 2
    told = capsys.readouterr()
    assert words in told.err
    *_, last = told.err.splitlines()
    assert last.startswith("shoal: ")
    assert len(last) < 600
