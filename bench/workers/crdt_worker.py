"""pycrdt and loro: a map of keys merged into an empty document, from updates of one key or of a hundred each."""

from __future__ import annotations

import time
from typing import Any

import loro
import pycrdt
from loop import serve


def merge(kind: str, count: int, batch: int) -> dict[str, Any]:
    """Operations a second; nothing is signed or checked."""
    return (_pycrdt if kind == "pycrdt" else _loro)(count, batch)


def _pycrdt(count: int, batch: int) -> dict[str, Any]:
    source, updates = pycrdt.Doc(), []
    source["map"] = mapped = pycrdt.Map()
    state = b"\x00"
    for first in range(0, count, batch):
        with source.transaction():
            for number in range(first, first + batch):
                mapped[f"key/{number}"] = "v" * 24
        updates.append(source.get_update(state))
        state = source.get_state()
    target = pycrdt.Doc()
    target["map"] = pycrdt.Map()
    began = time.process_time()
    for update in updates:
        target.apply_update(update)
    seconds = time.process_time() - began
    return {"rate": count / seconds, "bytes": sum(map(len, updates))}


def _loro(count: int, batch: int) -> dict[str, Any]:
    source, updates = loro.LoroDoc(), []
    mapped = source.get_map("map")
    for first in range(0, count, batch):
        version = source.oplog_vv
        for number in range(first, first + batch):
            mapped.insert(f"key/{number}", "v" * 24)
        source.commit()
        updates.append(source.export(loro.ExportMode.Updates(version)))
    target = loro.LoroDoc()
    began = time.process_time()
    for update in updates:
        target.import_(update)
    seconds = time.process_time() - began
    return {"rate": count / seconds, "bytes": sum(map(len, updates))}


if __name__ == "__main__":
    serve({"merge": merge})
