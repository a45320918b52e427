"""The C loops built for 64-bit Arm and in plain C compute what this machine's own build does, to the bit.

Needs a cross compiler and a user-mode emulator, as tests/kernels/test_cross.py does, which `make test` installs.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from shoal.kernels import build
from shoal.proof import native

SELFTEST = Path(__file__).parent / "cross" / "selftest.c"
FLAGS = ("-O1", "-std=gnu11", "-pthread", "-Wno-psabi", "-Wall", "-Wextra", "-Werror", f"-I{native.UNIT.folder}")
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


def _lines(compiler: str, flags: tuple[str, ...], emulator: tuple[str, ...], folder: Path) -> list[str]:
    program = folder / "selftest"
    subprocess.run([compiler, *FLAGS, *flags, "-static", SELFTEST, "-o", program], check=True)
    done = subprocess.run([*emulator, program], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    compiler = shutil.which("cc") or shutil.which("gcc") or pytest.fail("expected a C compiler on PATH")
    return _lines(compiler, build.ISAS[build.available_isas()[0]][1], (), tmp_path_factory.mktemp("ours"))


def test_plain_c(ours: list[str], tmp_path: Path) -> None:
    assert _lines(shutil.which("cc") or "gcc", (), (), tmp_path) == ours
    assert len({*ours}) == len(ours) > 15


@pytest.mark.real
def test_arm(ours: list[str], tmp_path: Path) -> None:
    if platform.machine() in ("aarch64", "arm64"):
        compiler, emulator = "cc", ()
    else:
        for tool in (CROSS, EMULATOR):
            if shutil.which(tool) is None:
                pytest.fail(f"expected {tool} on PATH (Debian: apt-get install gcc-aarch64-linux-gnu qemu-user)")
        compiler, emulator = CROSS, (EMULATOR,)
    assert _lines(compiler, build.ISAS["neon"][1], emulator, tmp_path) == ours
