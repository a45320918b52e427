"""The store: one directory per model, and a model is either wholly there or not there.

    root/models/<name>/record.json      what it is, where it came from, its hash
    root/models/<name>/<file or folder> the weights, unless the record refers to a path elsewhere
    root/staging/<name>/                work in progress, thrown away by the next pull of that name
    root/locks/<name>.lock              held (flock) while a pull or removal of that name runs

Rules that stay true in this file:
- a directory appears under models/ by one rename, after its contents have been flushed to disk;
- nothing under models/ is ever written in place;
- a lock is released by the kernel when its holder dies, so that no stale lock needs breaking.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shoal.core.errors import BadConfig, BadWeights, LocalError
from shoal.models.catalogue import check_name, find

Format = Literal["gguf", "folder"]


@dataclass(frozen=True, slots=True)
class Record:
    """What the store knows of a model.

    file        relative to the model's directory, or absolute where the weights stay elsewhere.
    source      what was pulled, as the user wrote it.
    sha256      hex; of the GGUF file, or of a folder's sorted lines "<sha256>  <file name>\\n".
    pulled_at   seconds since 1970-01-01 UTC.
    """

    name: str
    format: Format
    file: str
    source: str
    sha256: str
    size_bytes: int
    licence: str | None
    pulled_at: float


class Store:
    """The models under `root` (created when something is first stored)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def records(self) -> list[Record]:
        """Every model, by name. BadWeights for a record that cannot be read."""
        directory = self.root / "models"
        names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
        return [_read_record(directory / name / "record.json") for name in names if not name.startswith(".")]

    def record(self, name: str) -> Record | None:
        entry = find(name)
        path = self.directory(entry.name if entry else name) / "record.json"
        return _read_record(path) if path.exists() else None

    def directory(self, name: str) -> Path:
        return self.root / "models" / check_name(name)

    def staging_directory(self, name: str) -> Path:
        return self.root / "staging" / check_name(name)

    def path(self, record: Record) -> Path:
        """Where the weights are: a GGUF file or a folder. BadWeights when they are gone or have another size."""
        path = self.directory(record.name) / record.file
        found = size_on_disk(path) if path.exists() else None
        if found is None:
            raise BadWeights(str(path), "file", f"the weights of {record.name!r}", "nothing there; pull it again")
        if found != record.size_bytes:
            raise BadWeights(str(path), "size", f"{record.size_bytes:,} bytes", f"{found:,} bytes; pull it again")
        return path

    def resolve(self, model: str) -> Path:
        """The weights behind a stored name or alias, or a path given as such. BadConfig lists what there is."""
        looks_like_path = "/" in model or model.endswith(".gguf") or model.startswith("~")
        if looks_like_path and not model.startswith("hf:"):
            path = Path(model).expanduser()
            if path.exists():
                return path.resolve()
            raise BadConfig("model", f"there is no file or folder at {str(path)!r}")
        record = None if looks_like_path else self.record(model)
        record = record or next((item for item in self.records() if item.source == model), None)
        if record is None:
            have = ", ".join(record.name for record in self.records()) or "nothing yet"
            can_pull = find(model) is not None or model.startswith("hf:")
            advice = f"shoal models pull {model}" if can_pull else "a path, hf:owner/name, or shoal models list"
            raise BadConfig("model", f"{model!r} is not in the store (there: {have}); try: {advice}")
        return self.path(record)

    def remove(self, name: str) -> Record:
        """Take a model out of the store; weights that lie elsewhere are left alone. BadConfig when it is not there."""
        record = self.record(name)
        if record is None:
            have = ", ".join(item.name for item in self.records()) or "nothing"
            raise BadConfig("model", f"{name!r} is not in the store; there: {have}")
        with self.staging(record.name) as staging:
            os.rename(self.directory(record.name), staging / "removed")
        return record

    @contextmanager
    def staging(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """A private directory on the store's filesystem, under the lock of `name`. Emptied when the block succeeds.

        `on_wait` is called once if somebody else holds the lock. What an interrupted holder left is still there.
        """
        staging = self.staging_directory(name)
        with _locked(self.root / "locks" / f"{check_name(name)}.lock", on_wait):
            staging.mkdir(parents=True, exist_ok=True)
            yield staging
            shutil.rmtree(staging, ignore_errors=True)

    def commit(self, staging: Path, built: Path, record: Record) -> None:
        """Make `built` (inside `staging`) the model `record.name`, replacing what was there, in one rename."""
        target, replaced = self.directory(record.name), staging / "replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        (built / "record.json").write_text(json.dumps(asdict(record), indent=2) + "\n")
        _flush_tree(built)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            os.rename(target, replaced)
        os.rename(built, target)
        _flush(target.parent)


FOLDER_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""What is read from a Hugging Face style folder. Pickled weights (.bin, .pt) are never read, so never stored."""


def weight_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder that matter, in order of their names."""
    if path.is_file():
        return [path]
    return sorted(item for item in path.iterdir() if item.is_file() and item.suffix in FOLDER_SUFFIXES)


def size_on_disk(path: Path) -> int:
    """Bytes of the weights at `path`."""
    return sum(item.stat().st_size for item in weight_files(path))


_TYPES = {"name": str, "format": str, "file": str, "source": str, "sha256": str, "size_bytes": int,
          "licence": str | None, "pulled_at": float | int}  # fmt: skip


def _read_record(path: Path) -> Record:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**data)
    except (OSError, ValueError, TypeError) as error:
        raise BadWeights(str(path), "record", "a record this version of Shoal wrote", str(error)) from error
    for name, kind in _TYPES.items():
        if not isinstance(value := getattr(record, name), kind):
            raise BadWeights(str(path), name, f"a value of type {kind}", repr(value))
    return record


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise LocalError(f"the store cannot be written: {error}; set SHOAL_HOME to a directory that can") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _flush_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        _flush(path)
    _flush(directory)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
