"""Decode steps of fixed shapes: on CUDA each shape is recorded once as a graph and replayed: a step is one launch.

A decode step of a small model is hundreds of kernels of a few microseconds: launching them takes longer than they run.
A graph needs the same tensors every time, so batches are padded to powers of two in sequences and keys; padding rows
write to a slot that no block has. Whatever is not a plain decode step (prompts, drafts, adapters, taps, experts) runs
as ever, and so does what is larger than the largest shape.

**Recording has never been run: no GPU was at hand.** The shapes, the padding and their results are tested on the CPU,
where a fixed step runs eagerly; what is CUDA's alone is `_record`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from shoal.models.batch import Batch
from shoal.models.config import ModelConfig
from shoal.models.rope import rope_tables
from shoal.models.torch_attention import PADDED_KEYS, Group

MAX_ROWS, LEAST_KEYS = 32, 256
"""Sequences of the largest shape, keys of the smallest: 34 shapes at most, each with buffers for its largest layer."""

Forward = Callable[["FixedStep"], torch.Tensor]


class FixedStep:
    """What `TorchOps` asks of a step, in tensors that stay where they are.

    `rows` sequences of one new token each, of at most `keys` keys; `spare` is the cache slot that padding rows use.
    """

    def __init__(self, rows: int, keys: int, config: ModelConfig, spare: int, device: torch.device) -> None:
        self.rows, self._config, self._spare = rows, config, spare
        self.adapter_rows: dict[int, torch.Tensor] = {}
        self.batch: Batch
        self.tokens, self.slots = (torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(2))
        self.output_rows = torch.arange(rows, device=device)
        self._groups = {window: self._empty(min(keys, window or keys)) for window in set(config.windows)}
        self._tables = [self._table(kind, np.zeros(rows, np.int32)) for kind in range(len(config.rope_kinds))]
        self._tables = [(cos.to(device), sin.to(device)) for cos, sin in self._tables]

    def groups(self, window: int | None) -> list[Group]:
        return [self._groups[window]]

    def rope_table(self, kind: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._tables[kind]

    def fill(self, batch: Batch, block_size: int) -> None:
        """Write the batch, at most `rows` sequences of at most `keys` keys, where the last one was."""
        self.batch = batch
        self._put(self.tokens, batch.tokens, 0)
        self._put(self.slots, batch.slots, self._spare)
        for window, group in self._groups.items():
            slots, mask = visible(batch, window, group.slots.shape[1], block_size)
            self._put(group.slots, slots, self._spare)
            self._put(group.mask[:, 0, 0], mask, 0)
            group.mask[batch.num_seqs :, :, :, 0] = True  # a row that sees nothing would divide by zero
        places = batch.positions if batch.rope_positions is None else batch.rope_positions
        for kind, tables in enumerate(self._tables):
            for table, values in zip(tables, self._table(kind, places), strict=True):
                table[: len(places)].copy_(values)

    def _put(self, target: torch.Tensor, values: np.ndarray, padding: int) -> None:
        padded = np.full(tuple(target.shape), padding, values.dtype)
        padded[: len(values)] = values
        target.copy_(torch.from_numpy(padded))

    def _empty(self, keys: int) -> Group:
        slots = torch.zeros((self.rows, keys), dtype=torch.int64, device=self.tokens.device)
        return Group(self.output_rows, slots, torch.zeros_like(slots, dtype=torch.bool)[:, None, None])

    def _table(self, kind: int, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = rope_tables(self._config.rope_kinds[kind], self._config.head_dim, places)
        return torch.from_numpy(cos[:, None]), torch.from_numpy(sin[:, None])


def visible(batch: Batch, window: int | None, width: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots int64 and whether they are seen, (seqs, width), of the keys that each sequence's one new token sees."""
    last = batch.context_lens.astype(np.int64)[:, None] - 1
    first = np.zeros_like(last) if window is None else np.maximum(last - window + 1, 0)
    key = first + np.arange(width)
    held = np.minimum(key, last)
    blocks = np.take_along_axis(batch.block_tables.astype(np.int64), held // block_size, axis=1)
    return blocks * block_size + held % block_size, key <= last


class FixedSteps:
    """Plain decode steps by shape; see above. Slot `num_slots` is for padding: the cache has more than that."""

    def __init__(self, config: ModelConfig, num_slots: int, block_size: int, device: torch.device) -> None:
        self._config, self._spare, self._block_size, self._device = config, num_slots, block_size, device
        self._is_recording = device.type == "cuda"
        self._shapes: dict[tuple[int, int], tuple[FixedStep, Callable[[], torch.Tensor]]] = {}

    def run(self, batch: Batch, forward: Forward) -> torch.Tensor | None:
        """Logits (sequences, vocab), valid until the next call; None where this is no work for a fixed step."""
        shape = self._shape(batch)
        if shape is None:
            return None
        if shape not in self._shapes:
            step = FixedStep(*shape, self._config, self._spare, self._device)
            step.fill(batch, self._block_size)
            self._shapes[shape] = step, _record(forward, step) if self._is_recording else lambda: forward(step)
        step, replay = self._shapes[shape]
        step.fill(batch, self._block_size)
        return replay()[: batch.num_seqs]

    def _shape(self, batch: Batch) -> tuple[int, int] | None:
        count = batch.num_seqs
        is_plain = 0 < count == batch.num_rows == len(batch.output_rows) and batch.tap_layer < 0
        if not is_plain or count > MAX_ROWS or self._config.num_experts or (batch.adapters >= 0).any():
            return None
        rows = 1 << (count - 1).bit_length()
        keys = max(LEAST_KEYS, 1 << (int(batch.context_lens.max()) - 1).bit_length())
        return (rows, keys) if rows * keys <= PADDED_KEYS else None


def _record(forward: Forward, step: FixedStep) -> Callable[[], torch.Tensor]:
    """A graph of one step, run once before on a stream of its own, as CUDA asks. Never run here: see above."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        forward(step)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = forward(step)

    def replay() -> torch.Tensor:
        graph.replay()
        return logits

    return replay
