"""A verifier in a process of its own: optimised, without torch, without a compiler; and proofs do not depend on C."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import shoal
from shoal.proof import native
from shoal.proof.fakes import all_examples, dense
from shoal.proof.prover import prove

ALLOWED = {"shoal", "numpy", "blake3", "cbor2"}

SCRIPT = """
import pickle, sys
before = set(sys.modules)
from shoal.core.errors import RemoteError
from shoal.proof.verifier import verify
from shoal.proof.native import library
circuit, public, weights, proofs = pickle.load(open(sys.argv[1], "rb"))
print("library", library() is not None)
for proof in proofs:
    try:
        verify(circuit, public, proof, weights=weights)
        print("accepted")
    except RemoteError as error:
        print(type(error).__name__)
names = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(name for name in names if name not in sys.stdlib_module_names and not name.startswith("_")))
"""


def test_alone(tmp_path: Path) -> None:
    example = dense()
    proof = prove(example.circuit, example.weights, example.public, example.witness)
    flips = [proof[:at] + bytes([proof[at] ^ 1]) + proof[at + 1 :] for at in range(100, len(proof), len(proof) // 4)]
    (tmp_path / "case").write_bytes(pickle.dumps((example.circuit, example.public, example.weights, [proof, *flips])))
    (tmp_path / "script.py").write_text(SCRIPT)
    source = str(Path(shoal.__file__).parent.parent)
    paths = os.pathsep.join([source, *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-O", str(tmp_path / "script.py"), str(tmp_path / "case")],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": paths, "HOME": str(tmp_path), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    library, first, *rest, modules = done.stdout.splitlines()
    assert first == "accepted"
    assert rest == ["ProofRejected"] * len(flips)
    assert set(modules.split()) <= ALLOWED
    assert library in ("library False", "library True")  # True where the ziglang wheel brings a compiler


@pytest.mark.parametrize("name", all_examples())
def test_proofs_are_the_same_without_c(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = all_examples()[name]
    proof = prove(example.circuit, example.weights, example.public, example.witness)
    monkeypatch.setattr(native, "function", lambda name, arguments: None)
    assert proof == prove(example.circuit, example.weights, example.public, example.witness)
