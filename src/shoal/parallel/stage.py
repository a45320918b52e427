"""A range of layers that several askers share, each with blocks of its own in the cache. Synchronous, one thread.

Rules that stay true in this file, whatever a message says (the kernels behind it check nothing):
- a step touches blocks of its own session only, at positions within them and within the context;
- it attends to nothing but what this session computed: `_filled` counts each block's positions, 0 when it is taken, so
  what somebody else left there is never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from shoal.core.errors import Overloaded, PeerFault
from shoal.models.batch import Batch
from shoal.parallel.frames import CopyFrame, Rows, StageInfo, StepFrame


class Layers(Protocol):
    """What of a runner a stage needs."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def block_size(self) -> int: ...

    def run(self, batch: Batch) -> np.ndarray: ...

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None: ...

    def close(self) -> None: ...


class Session:
    """Blocks of one asker: its own numbers 0 .. num_blocks - 1, behind them the runner's."""

    def __init__(self, blocks: Sequence[int]) -> None:
        self.blocks = np.array(blocks, np.int32)
        self.filled = np.zeros(len(blocks), np.int64)

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)


class Stage:
    """`runner` runs the layers that `info` says (`models.part`), without embedding and head."""

    def __init__(self, info: StageInfo, runner: Layers) -> None:
        self.info = info
        self._runner = runner
        self._free = list(range(runner.num_blocks))

    @property
    def num_blocks(self) -> int:
        """Of the whole cache, taken or not."""
        return self._runner.num_blocks

    def take(self, num_blocks: int) -> Session:
        """Room in the cache. Overloaded where there is not so much."""
        if num_blocks > len(self._free):
            size = self.info.block_size
            raise Overloaded(
                f"{len(self._free) * size} tokens of cache are free here, {num_blocks * size} wanted", 10.0
            )
        taken, self._free = self._free[:num_blocks], self._free[num_blocks:]
        return Session(taken)

    def give_back(self, session: Session) -> None:
        self._free += session.blocks.tolist()
        session.blocks = session.blocks[:0]
        session.filled = session.filled[:0]

    def step(self, session: Session, frame: StepFrame) -> np.ndarray:
        """The residual stream behind the last layer, float32 (rows, hidden). PeerFault for a step out of bounds."""
        for rows in frame.seqs:
            self._check(session, rows)
            self._fill(session, rows)
        return self._runner.run(_batch(session, frame, self.info.block_size)).copy()

    def copy(self, session: Session, frame: CopyFrame) -> None:
        """Copy whole blocks of the session's own. PeerFault for others, or more of them than it has."""
        if len(frame.pairs) > session.num_blocks:
            raise PeerFault(f"expected at most {session.num_blocks} copies at once, found {len(frame.pairs)}")
        if any(max(pair) >= session.num_blocks for pair in frame.pairs):
            raise PeerFault(f"expected blocks below {session.num_blocks}")
        for source, target in frame.pairs:
            session.filled[target] = session.filled[source]
        self._runner.copy_blocks([(int(session.blocks[a]), int(session.blocks[b])) for a, b in frame.pairs])

    def close(self) -> None:
        self._runner.close()

    def _check(self, session: Session, rows: Rows) -> None:
        size, end = self.info.block_size, rows.start + rows.count
        if end > self.info.context_length:
            raise PeerFault(f"expected positions below {self.info.context_length}, found {end - 1}")
        if len(rows.blocks) != -(-end // size) or max(rows.blocks) >= session.num_blocks:
            raise PeerFault(f"expected {-(-end // size)} blocks below {session.num_blocks}, found {len(rows.blocks)}")
        if len(set(rows.blocks)) != len(rows.blocks):
            raise PeerFault("expected each block once in a sequence")
        needed = np.minimum(size, rows.start - size * np.arange(len(rows.blocks)))
        if (session.filled[list(rows.blocks)] < needed).any():
            raise PeerFault(f"expected every position before {rows.start} to be computed by this session")

    def _fill(self, session: Session, rows: Rows) -> None:
        size, blocks = self.info.block_size, list(rows.blocks)
        known = np.clip(rows.start + rows.count - size * np.arange(len(blocks)), 0, size)
        session.filled[blocks] = np.maximum(session.filled[blocks], known)


def _batch(session: Session, frame: StepFrame, block_size: int) -> Batch:
    """The step's arrays, in the runner's block numbers. Tokens are zeros: nobody here knows them."""
    counts = np.array([rows.count for rows in frame.seqs], np.int32)
    starts = np.array([rows.start for rows in frame.seqs], np.int32)
    query_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    owner = np.repeat(np.arange(len(counts)), counts)
    num_rows = int(query_start[-1])
    positions = np.arange(num_rows, dtype=np.int32) + (starts - query_start[:-1])[owner]
    tables = np.zeros((len(counts), max(len(rows.blocks) for rows in frame.seqs)), np.int32)
    for table, rows in zip(tables, frame.seqs, strict=True):
        table[: len(rows.blocks)] = session.blocks[list(rows.blocks)]
    return Batch(
        tokens=np.zeros(num_rows, np.int32),
        positions=positions.astype(np.int32),
        slots=(tables[owner, positions // block_size] * block_size + positions % block_size).astype(np.int32),
        query_start=query_start,
        context_lens=starts + counts,
        block_tables=tables,
        adapters=np.full(len(counts), -1, np.int32),
        output_rows=np.arange(num_rows, dtype=np.int32),
        inputs=frame.stream,
    )
