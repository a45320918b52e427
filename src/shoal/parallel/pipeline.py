"""A runner whose ends are here and whose middle is at peers: the engine on top of it does not know.

    tokens -> [embedding, layers 0..a) -> hop -> ... -> hop -> [layers L-b..L, head] -> logits

The cache is numbered alike everywhere: the scheduler's block tables go along with every step, so prefix reuse, forks,
chunked prefill and preemption work as on one machine, and no stage has to know of any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

from shoal.core.errors import BadConfig, LocalError, Unsupported
from shoal.engine.runner import Runner
from shoal.models.batch import Batch
from shoal.parallel.frames import Rows
from shoal.parallel.noise import Noise


class Middle(Protocol):
    """A stage somewhere else (`hop.Hop`)."""

    def run(self, seqs: Sequence[Rows], stream: np.ndarray) -> np.ndarray: ...

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None: ...


class PipelineRunner:
    """`front` ends without a head, `back` begins without an embedding (`models.part`); `middles` in order."""

    max_adapters = 0

    def __init__(self, front: Runner, middles: Sequence[Middle], back: Runner, noise: Noise | None = None) -> None:
        if (front.num_blocks, front.block_size) != (back.num_blocks, back.block_size):
            raise BadConfig("blocks", f"expected {front.num_blocks} of {front.block_size} at both ends")
        self._front, self._middles, self._back, self._noise = front, middles, back, noise

    @property
    def num_blocks(self) -> int:
        return self._front.num_blocks

    @property
    def block_size(self) -> int:
        return self._front.block_size

    @property
    def vocab_size(self) -> int:
        return self._back.vocab_size

    @property
    def hidden_size(self) -> int:
        return self._back.hidden_size

    def run(self, batch: Batch) -> np.ndarray:
        """See `Runner`. Unsupported for taps and dropped keys, which stages do not do."""
        if batch.tap_layer >= 0 or batch.rope_positions is not None:
            raise Unsupported("hidden states and approximations are not to be had of a model that is split over peers")
        every = np.arange(batch.num_rows, dtype=np.int32)
        stream = self._front.run(replace(batch, output_rows=every)).copy()
        if self._noise is not None:
            stream = self._noise.add(stream)
        seqs = sequences(batch, self.block_size)
        for middle in self._middles:
            stream = middle.run(seqs, stream)
        return self._back.run(replace(batch, inputs=stream))

    def taps(self) -> np.ndarray:
        return np.zeros((0, self.hidden_size), np.float32)

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        listed = list(pairs)
        self._front.copy_blocks(listed)
        for middle in self._middles:
            middle.copy_blocks(listed)
        self._back.copy_blocks(listed)

    def read_adapter(self, path: str | Path) -> NoReturn:
        raise Unsupported("adapters change layers that are at peers; a split model has none")

    def load_adapter(self, slot: int, adapter: object) -> NoReturn:
        raise LocalError(f"no adapter slot {slot}: a split model has none")

    def drop_adapter(self, slot: int) -> None:
        """There is none to drop."""

    def close(self) -> None:
        """The ends; hops belong to whoever opened them."""
        self._front.close()
        self._back.close()


def sequences(batch: Batch, block_size: int) -> tuple[Rows, ...]:
    """What a stage has to know of a batch: positions and blocks, no token."""
    bounds = batch.query_start.tolist()
    found = []
    for index, (first, end) in enumerate(pairwise(bounds)):
        start, context = int(batch.positions[first]), int(batch.context_lens[index])
        blocks = batch.block_tables[index, : -(-context // block_size)].tolist()
        found.append(Rows(start, end - first, tuple(blocks)))
    return tuple(found)
