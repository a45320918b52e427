"""The kernels built for 64-bit Arm (NEON and plain C), run under emulation, against this machine's own build.

Needs a cross compiler and a user-mode emulator, which `make test` installs where it can (Debian:
gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user). On a machine of that kind already, nothing is emulated.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shoal.kernels import build

SELFTEST = Path(__file__).parent / "cross" / "selftest.c"
FLAGS = ("-O2", "-std=gnu11", "-pthread", "-Wno-psabi", "-fno-math-errno", f"-I{build.SOURCES}")
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


def _numbers(compiler: str, flags: tuple[str, ...], emulator: tuple[str, ...], folder: Path) -> np.ndarray:
    program = folder / "selftest"
    subprocess.run([compiler, *FLAGS, *flags, "-static", SELFTEST, "-o", program, "-lm"], check=True)
    done = subprocess.run([*emulator, program], check=True, capture_output=True, text=True, timeout=240)
    return np.array(done.stdout.split(), np.float64)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    flags = build.ISAS[build.available_isas()[0]][1]
    compiler = shutil.which("cc") or shutil.which("gcc") or pytest.fail("expected a C compiler on PATH")
    return _numbers(compiler, flags, (), tmp_path_factory.mktemp("ours"))


@pytest.mark.real
@pytest.mark.parametrize("isa", ["neon", "scalar"])
def test_arm_computes_the_same(isa: str, ours: np.ndarray, tmp_path: Path) -> None:
    if platform.machine() in ("aarch64", "arm64"):
        compiler, emulator = "cc", ()
    else:
        for tool in (CROSS, EMULATOR):
            if shutil.which(tool) is None:
                pytest.fail(f"expected {tool} on PATH (Debian: apt-get install gcc-aarch64-linux-gnu qemu-user)")
        compiler, emulator = CROSS, (EMULATOR,)
    theirs = _numbers(compiler, build.ISAS[isa][1], emulator, tmp_path)
    assert len(theirs) == len(ours) > 8000
    assert np.isfinite(theirs).all()
    assert (np.abs(theirs - ours) <= 2e-5 + 2e-6 * np.abs(ours)).all()
