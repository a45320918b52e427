"""Teacher forcing: given tokens go through a runner in ragged batches, and the logits of every position come back.

For tests and benchmarks: the engine's scheduler makes its own batches. Blocks are handed out in a shuffled order, so a
runner that ignores its block tables cannot pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shoal.models.batch import Batch


class Runs(Protocol):
    """The part of a runner that is needed here."""

    block_size: int
    num_blocks: int

    def run(self, batch: Batch) -> np.ndarray: ...


@dataclass(slots=True)
class Forced:
    """One sequence: its tokens, how many of them have run, and where its keys lie."""

    tokens: np.ndarray
    blocks: np.ndarray
    adapter: int = -1
    done: int = 0

    def slots(self, start: int, stop: int, block_size: int) -> np.ndarray:
        position = np.arange(start, stop)
        return self.blocks[position // block_size] * block_size + position % block_size


def forced_logits(
    runner: Runs,
    sequences: Sequence[Sequence[int]],
    steps: Iterable[Sequence[int]] = (),
    adapters: Sequence[int] = (),
    seed: int = 0,
) -> list[np.ndarray]:
    """float32 (tokens, vocab) for each sequence.

    steps     how many tokens of each sequence each step takes (0: it sits out); what is left runs in a last step.
    adapters  LoRA slot of each sequence, -1 where none are given.
    """
    work = _place(runner, sequences, adapters, seed)
    parts: list[list[np.ndarray]] = [[] for _ in work]
    for counts in [*steps, [len(tokens) for tokens in sequences]]:
        taken = [min(count, len(item.tokens) - item.done) for item, count in zip(work, counts, strict=True)]
        active = [index for index, count in enumerate(taken) if count]
        if not active:
            continue
        batch = make_batch([work[index] for index in active], [taken[index] for index in active], runner.block_size)
        rows = np.split(runner.run(batch).copy(), batch.query_start[1:-1])  # valid until the next run only
        for index, logits in zip(active, rows, strict=True):
            parts[index].append(logits)
            work[index].done += len(logits)
    return [np.concatenate(part) for part in parts]


def make_batch(work: Sequence[Forced], counts: Sequence[int], block_size: int, tap_layer: int = -1) -> Batch:
    """The next `counts` tokens of each sequence; logits are wanted at every row."""
    spans = [(item, item.done, item.done + count) for item, count in zip(work, counts, strict=True)]
    tables = np.zeros((len(work), max(len(item.blocks) for item in work)), np.int32)
    for row, item in enumerate(work):
        tables[row, : len(item.blocks)] = item.blocks
    return Batch(
        tokens=_flat([item.tokens[start:stop] for item, start, stop in spans]),
        positions=_flat([np.arange(start, stop) for _, start, stop in spans]),
        slots=_flat([item.slots(start, stop, block_size) for item, start, stop in spans]),
        query_start=np.cumsum([0, *counts], dtype=np.int32),
        context_lens=np.array([stop for _, _, stop in spans], np.int32),
        block_tables=tables,
        adapters=np.array([item.adapter for item in work], np.int32),
        output_rows=np.arange(sum(counts), dtype=np.int32),
        tap_layer=tap_layer,
    )


def _place(runner: Runs, sequences: Sequence[Sequence[int]], adapters: Sequence[int], seed: int) -> list[Forced]:
    """Give every sequence blocks of its own, in no order."""
    free = list(np.random.default_rng(seed).permutation(runner.num_blocks).astype(np.int32))
    work = []
    for index, tokens in enumerate(sequences):
        count = -(-len(tokens) // runner.block_size)
        taken, free = free[:count], free[count:]
        if len(taken) < count:
            raise ValueError(f"sequences need more than the runner's {runner.num_blocks} blocks")
        adapter = adapters[index] if adapters else -1
        work.append(Forced(np.asarray(tokens, np.int32), np.array(taken, np.int32), adapter))
    return work


def _flat(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.int32)
