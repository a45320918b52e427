"""A runner without a network: its logits are a hash of what attention would read, so a wrong table changes the answer.

Each slot remembers (token, position, adapter); a row's logits are drawn from a generator seeded by the memory of every
position up to its own, read through the block table. It shows paging, sharing and rollback errors, not arithmetic.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shoal.core.errors import BadWeights
from shoal.models.batch import Batch


class FakeRunner:
    """`gate` closed (cleared) holds every run; `is_inside` is set while one is held or running. `reading` and
    `is_reading` are the same for `read_adapter`.

    batches   the batches that ran.
    error     raised by the next run, if set.
    adapters  slot -> path; a path that contains "broken" cannot be loaded.
    """

    def __init__(
        self, *, num_blocks: int = 32, block_size: int = 4, vocab_size: int = 259, hidden_size: int = 8
    ) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.vocab_size, self.hidden_size, self.max_adapters = vocab_size, hidden_size, 2
        self.gate = threading.Event()
        self.gate.set()
        self.is_inside = threading.Event()
        self.reading = threading.Event()
        self.reading.set()
        self.is_reading = threading.Event()
        self.batches: list[Batch] = []
        self.error: Exception | None = None
        self.adapters: dict[int, str] = {}
        self.is_closed = False
        self._memory = np.zeros((num_blocks * block_size, 3), np.int64)
        self._taps = np.zeros((0, hidden_size), np.float32)

    def run(self, batch: Batch) -> np.ndarray:
        self.is_inside.set()
        self.gate.wait()
        self.is_inside.clear()
        if self.error is not None:
            raise self.error
        self.batches.append(batch)
        owner = np.repeat(np.arange(batch.num_seqs), np.diff(batch.query_start))
        adapters = np.array([self._fingerprint(int(slot)) for slot in batch.adapters])
        self._memory[batch.slots] = np.stack([batch.tokens, batch.positions, adapters[owner]], axis=1)
        seeds = [self._seed(batch, int(owner[row]), int(batch.positions[row])) for row in batch.output_rows]
        self._taps = self._draw([seed + batch.tap_layer for seed in seeds], self.hidden_size)
        return self._draw(seeds, self.vocab_size) * 2

    def taps(self) -> np.ndarray:
        return self._taps

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        blocks = self._memory.reshape(self.num_blocks, self.block_size, 3)
        for source, target in pairs:
            blocks[target] = blocks[source]

    def read_adapter(self, path: str | Path) -> str:
        self.is_reading.set()
        self.reading.wait()
        self.is_reading.clear()
        if "broken" in str(path):
            raise BadWeights(str(path), "lora_A", "a matrix", "nothing")
        return str(path)

    def load_adapter(self, slot: int, adapter: str) -> None:
        self.adapters[slot] = adapter

    def drop_adapter(self, slot: int) -> None:
        del self.adapters[slot]

    def close(self) -> None:
        self.is_closed = True

    def _fingerprint(self, slot: int) -> int:
        return zlib.crc32(self.adapters[slot].encode()) if slot >= 0 else 0

    def _seed(self, batch: Batch, seq: int, position: int) -> int:
        positions = np.arange(position + 1)
        slots = batch.block_tables[seq][positions // self.block_size] * self.block_size + positions % self.block_size
        return int.from_bytes(hashlib.sha256(self._memory[slots].tobytes()).digest()[:7], "little")

    def _draw(self, seeds: list[int], width: int) -> np.ndarray:
        rows = [np.random.default_rng(seed).standard_normal(width, np.float32) for seed in seeds]
        return np.stack(rows) if rows else np.zeros((0, width), np.float32)
