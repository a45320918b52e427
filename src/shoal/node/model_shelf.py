"""The stored models a sharing node offers to its peers, found by name: `content.find`, and records in the directory.

request  [model name, hex SHA-256 or ""]
reply    up to 8 of [name, blob, size in bytes, hex SHA-256, file name]

What this does not protect against: a peer may offer anything under a name. Whoever pulls checks a pinned SHA-256 where
there is one; where there is none it gets what the peers it asked agree on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.core.clock import Clock
from shoal.core.encoding import encode
from shoal.core.errors import ShoalError
from shoal.mesh import parse
from shoal.mesh.calls import Answering, Incoming
from shoal.mesh.content import Library, Manifest, Shared, Transfers, manifest_of
from shoal.mesh.content.manifest import ID_BYTES, parse_manifest
from shoal.mesh.dht import Dht, topic_of
from shoal.mesh.peer_id import PeerId
from shoal.models.catalogue import CATALOGUE, WheelSource, find
from shoal.models.store import Record, Store

_log = logging.getLogger(__name__)

FIND = "content.find"
MAX_OFFERS = 8
MAX_TEXT = 200
LOOK_S = 30.0
"""Between two looks into the store for models pulled since."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's weights as a blob. `sha256` is that of the file, in hex."""

    name: str
    blob: bytes
    size_bytes: int
    sha256: str
    file: str


def find_bytes(name: str, sha256: str) -> bytes:
    return encode([name, sha256])


def parse_find(data: memoryview) -> tuple[str, str]:
    name, sha256 = parse.row(parse.message(data, 1024), 2)
    return parse.text(name, MAX_TEXT), parse.text(sha256, 64)


def found_bytes(files: list[ModelFile]) -> bytes:
    return encode([[item.name, item.blob, item.size_bytes, item.sha256, item.file] for item in files[:MAX_OFFERS]])


def parse_found(data: memoryview) -> tuple[ModelFile, ...]:
    return tuple(_parse_file(row) for row in parse.many(parse.message(data, 16 * 1024), MAX_OFFERS))


def name_topic(name: str) -> bytes:
    return topic_of(f"weights:{name}")


def blob_topic(blob: bytes) -> bytes:
    return topic_of(f"blob:{blob.hex()}")


_KNOWN = frozenset(entry.source.member_sha256 for entry in CATALOGUE if isinstance(entry.source, WheelSource))
"""Files of the catalogue's models, whatever they are called here."""


@dataclass(slots=True)
class ModelShelf:
    """`may_read` holds the owner's consent as to whom, `named` as to what: models that everybody can get anyway (the
    catalogue's) are offered, others only by name. `run` keeps up with the store.
    """

    home: Path
    clock: Clock
    dht: Dht
    may_read: Callable[[PeerId], bool]
    named: frozenset[str] = frozenset()
    transfers: Transfers | None = None
    library: Library = field(init=False)
    _files: dict[str, ModelFile] = field(default_factory=dict)  # by the name in the store

    def __post_init__(self) -> None:
        self.library = Library(self.clock, may_read=self.may_read, transfers=self.transfers)

    def register(self, answering: Answering) -> None:
        self.library.register(answering)
        answering.unary(FIND, self._on_find)

    async def run(self) -> None:
        """Offer what is in the store, and again what has changed there."""
        while True:
            with contextlib.suppress(ShoalError):  # a record that cannot be read: the next look may find it mended
                await self.look()
            await self.clock.sleep(LOOK_S)

    def _may_go(self, record: Record) -> bool:
        return record.name in self.named or find(record.name) is not None or record.sha256 in _KNOWN

    async def look(self) -> None:
        store = Store(self.home)
        records = {
            record.name: record for record in store.records() if record.format == "gguf" and self._may_go(record)
        }
        for name in [name for name, file in self._files.items() if _is_gone(records.get(name), file)]:
            self.library.withdraw(self._files.pop(name).blob)
        for record in records.values():
            if record.name not in self._files:
                await self._offer(record, store.path(record))

    async def _offer(self, record: Record, path: Path) -> None:
        manifest = await asyncio.to_thread(_manifest, self.home / "mesh" / "manifests", record.sha256, path)
        self.library.share(Shared(path, manifest, name=record.name))
        self._files[record.name] = ModelFile(
            record.name, manifest.id, manifest.size_bytes, record.sha256, path.name[:MAX_TEXT]
        )
        for topic in (name_topic(record.name), blob_topic(manifest.id)):
            with contextlib.suppress(ShoalError):
                await self.dht.provide(topic)

    async def _on_find(self, incoming: Incoming, body: memoryview) -> bytes:
        name, sha256 = parse_find(body)
        entry = find(name)
        wanted = entry.name if entry else name
        files = [file for file in self._files.values() if file.sha256 == sha256 or (not sha256 and file.name == wanted)]
        return found_bytes(files if self.may_read(incoming.peer) else [])


def _is_gone(record: Record | None, file: ModelFile) -> bool:
    return record is None or record.sha256 != file.sha256


def _manifest(folder: Path, sha256: str, path: Path) -> Manifest:
    """Made once for each content, and kept."""
    kept = folder / f"{sha256}-{path.stat().st_mtime_ns}"
    with contextlib.suppress(OSError, ShoalError):
        data = kept.read_bytes()
        return parse_manifest(data[ID_BYTES:], data[:ID_BYTES])
    made = manifest_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = kept.with_suffix(".new")
    fresh.write_bytes(made.id + made.to_bytes())
    os.replace(fresh, kept)
    return made


def _parse_file(value: Any) -> ModelFile:
    name, blob, size, sha256, file = parse.row(value, 5)
    return ModelFile(
        parse.text(name, MAX_TEXT),
        parse.octets(blob, ID_BYTES, ID_BYTES),
        parse.integer(size, 0, 2**50),
        parse.text(sha256, 64),
        parse.text(file, MAX_TEXT),
    )
