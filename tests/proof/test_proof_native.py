"""Where no library can be had there is none, without an error; addresses are right for every kind of array."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shoal.kernels import build
from shoal.proof import native


def test_without_a_compiler_there_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.library.__wrapped__() is not None
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    assert native.library.__wrapped__() is None
    monkeypatch.setattr(native, "library", lambda: None)
    assert native.function("proof_fold", "ipqpp") is None
    native.set_threads(2)  # nothing to be told


def test_sources_that_do_not_compile_are_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "proof.c").write_text("this is not C")
    monkeypatch.setattr(native, "UNIT", build.Unit(tmp_path, "proof"))
    assert native.library.__wrapped__() is None


def test_the_verifier_does_not_build_the_engines_kernels() -> None:
    path = build.library_path(unit=native.UNIT)
    assert path.name.startswith("proof-")
    assert path != build.library_path()
    assert b"shoal_pack" not in path.read_bytes()


def test_addresses() -> None:
    plain = np.arange(6, dtype=np.uint64)
    frozen = np.frombuffer(bytes(48), np.uint64)
    for array in (plain, plain.reshape(3, 2), plain[2:], frozen, np.empty((0, 2), np.uint64), plain.astype(np.int8)):
        assert native.pointer(array) == array.ctypes.data


def test_loading_what_a_verifier_needs_loads_little() -> None:
    code = "import shoal.proof.ligero, sys, json; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "cryptography", "nacl", "onnx"} & set(json.loads(done.stdout))
