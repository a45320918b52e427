"""Which model computes here, in which arithmetic: what receipts say of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from shoal.core.receipt import ModelIdentity
from shoal.core.request import Request
from shoal.models.digest import hash_weights


@dataclass(slots=True)
class ModelIdentities:
    """`path`: of the weights; `base`: what is known without reading them. Safe to use from several threads.

    The weights are hashed when the first receipt is signed, which takes a second or so for each gigabyte.
    """

    path: Path
    base: ModelIdentity
    adapters: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, request: Request) -> ModelIdentity:
        """Of what answers `request`."""
        with self._lock:
            if not self.base.weights:
                self.base = replace(self.base, weights=bytes.fromhex(hash_weights(self.path)))
        return replace(self.base, adapter=self.adapters.get(request.adapter or "", b""))

    def note_adapter(self, name: str, folder: str) -> None:
        """An adapter was loaded from there just now."""
        self.adapters[name] = bytes.fromhex(hash_weights(Path(folder)))
