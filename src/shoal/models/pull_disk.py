"""Weights that are on this machine already: a GGUF file or a Hugging Face style folder."""

from __future__ import annotations

from pathlib import Path

from shoal.models.catalogue import DiskSource
from shoal.models.describe import check_container
from shoal.models.digest import Progress, copy, offset
from shoal.models.store import size_on_disk, weight_files


def fetch_disk(source: DiskSource, built: Path, progress: Progress) -> str:
    """Check that it is whole; then its absolute path, or the name of the copy made inside `built`."""
    check_container(source.path)
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
