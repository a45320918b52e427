"""Weights that are on this machine already: a GGUF file or a Hugging Face style folder."""

from __future__ import annotations

from pathlib import Path

from shoal.core.errors import BadWeights
from shoal.models.catalogue import DiskSource
from shoal.models.digest import Progress, copy, offset
from shoal.models.store import size_on_disk, weight_files


def fetch_disk(source: DiskSource, built: Path, progress: Progress) -> str:
    """Check that it looks like weights; then its absolute path, or the name of the copy made inside `built`."""
    check_format(source.path)
    if not source.is_copied:
        return str(source.path)
    target = built / source.path.name
    if source.path.is_dir():
        target.mkdir()
    total, done = size_on_disk(source.path), 0
    for item in weight_files(source.path):
        copied = target / item.name if target.is_dir() else target
        with item.open("rb") as reader, copied.open("wb") as writer:
            copy(reader, writer, offset(progress, "copy", done, total))
        done += item.stat().st_size
    return target.name


def check_format(path: Path) -> None:
    """BadWeights unless `path` starts as a GGUF file does, or is a folder with a config and safetensors."""
    if path.is_dir():
        names = {item.name for item in weight_files(path)}
        if "config.json" not in names:
            raise BadWeights(str(path), "config.json", "a Hugging Face style folder with one", "no such file")
        if not any(name.endswith(".safetensors") for name in names):
            raise BadWeights(str(path), "*.safetensors", "weights as safetensors (pickles are never read)", "none")
        return
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise BadWeights(str(path), "magic", "b'GGUF' (a GGUF file)", repr(magic))
