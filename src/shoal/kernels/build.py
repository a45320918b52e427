"""Compiles the C kernels for this CPU, once, into a cache. No compiler, no kernels: callers fall back to torch.

The library is one translation unit with a plain ABI; its file name carries a hash of the sources, the flags and the
compiler, so a stale build is never loaded. The bytes that were hashed are the bytes that are compiled, even while
somebody edits the files. Building takes a few seconds and ends in an atomic rename.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shoal.core.errors import Unsupported

SOURCES = Path(__file__).parent / "csrc"
NAME = "shoal"
"""The file in `SOURCES` that includes the others, without ".c"; the library is named after it."""

BASE_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-Wno-psabi", "-fno-math-errno")

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
ISAS: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "avx512vnni": (
        frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx2", "fma", "f16c"}),
        ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", *_AVX2),
    ),
    "avxvnni": (frozenset({"avx_vnni", "avx2", "fma", "f16c"}), ("-mavxvnni", *_AVX2)),
    "avx2": (frozenset({"avx2", "fma", "f16c"}), _AVX2),
    "neon": (frozenset({"asimd", "asimddp", "fphp"}), ("-march=armv8.2-a+dotprod+fp16",)),
    "scalar": (frozenset(), ()),
}
"""Instruction sets, best first: the CPU flags each needs and the compiler flags it is built with."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Another library built the same way: the folder of its sources, and which of them includes the others."""

    folder: Path
    name: str


@dataclass(frozen=True, slots=True)
class BuildStatus:
    """kind: an instruction set of `ISAS`, or "none"; path: the library; detail: for a person."""

    kind: str
    path: Path | None
    detail: str


@cache
def cpu_flags() -> frozenset[str]:
    """Feature names as Linux spells them; empty where they cannot be read (then only "scalar" is built)."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return frozenset({"asimd", "asimddp", "fphp"})  # every Apple CPU of this kind has them
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return frozenset(lines[0].split(":", 1)[1].split()) if lines else frozenset()


def available_isas() -> tuple[str, ...]:
    """Instruction sets this CPU can run, best first."""
    return tuple(name for name, (needed, _) in ISAS.items() if needed <= cpu_flags())


def find_compiler() -> tuple[str, ...] | None:
    """Command of a C compiler: cc, gcc or clang on PATH, else the `ziglang` wheel's."""
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return (path,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    return None


def default_cache() -> Path:
    return Path.home() / ".cache" / "shoal" / "kernels"


def library_path(isa: str | None = None, cache_dir: Path | None = None, unit: Unit | None = None) -> Path:
    """The library for `isa` (default: the best this CPU runs), built if need be. unit: instead of the kernels.

    Raises Unsupported when the CPU lacks the instructions, there is no compiler, or it fails; the text has its output.
    """
    isa = isa or available_isas()[0]
    if isa not in available_isas():
        raise Unsupported(f"kernels: expected an instruction set of {', '.join(available_isas())}, found {isa!r}")
    compiler = find_compiler()
    if compiler is None:
        raise Unsupported("kernels: no C compiler found; install gcc or clang, or `pip install ziglang`")
    flags = (*BASE_FLAGS, *ISAS[isa][1], *_machine_flags(isa))
    unit = unit or Unit(SOURCES, NAME)
    sources = {path.name: path.read_bytes() for path in sorted(unit.folder.iterdir()) if path.suffix in (".c", ".h")}
    target = (cache_dir or default_cache()) / f"{unit.name}-{isa}-{_key(compiler, flags, sources)}{_suffix()}"
    if not target.exists():
        _compile((*compiler, *flags), unit.name, sources, target)
    return target


def status(cache_dir: Path | None = None) -> BuildStatus:
    """What `library_path()` gives on this machine, in words; never raises."""
    try:
        path = library_path(cache_dir=cache_dir)
    except Unsupported as error:
        return BuildStatus("none", None, str(error))
    return BuildStatus(available_isas()[0], path, f"built for {available_isas()[0]}")


def _machine_flags(isa: str) -> tuple[str, ...]:
    if isa == "scalar" and platform.machine() in ("aarch64", "arm64"):
        return ("-mcpu=native",)
    return ()


def _suffix() -> str:
    return sysconfig.get_config_var("SHLIB_SUFFIX") or ".so"


def _key(compiler: tuple[str, ...], flags: tuple[str, ...], sources: Mapping[str, bytes]) -> str:
    state = hashlib.sha256("\0".join((*compiler, *flags, platform.machine())).encode())
    for name, text in sources.items():
        state.update(name.encode() + b"\0" + text)
    return state.hexdigest()[:16]


def _compile(compiler: tuple[str, ...], name: str, sources: Mapping[str, bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(suffix=target.suffix, dir=target.parent)
    os.close(handle)
    folder = tempfile.TemporaryDirectory(prefix="shoal-kernels-")
    command = [*compiler, f"{folder.name}/{name}.c", "-o", partial, "-lm"]
    try:
        for file, text in sources.items():
            Path(folder.name, file).write_bytes(text)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)  # noqa: S603
        if done.returncode != 0:
            raise Unsupported(f"kernels: {' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
        Path(partial).replace(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unsupported(f"kernels: {command[0]} could not be run: {error}") from error
    finally:
        folder.cleanup()
        Path(partial).unlink(missing_ok=True)
