"""One step's work, flattened: prefill chunks and decode tokens of many sequences in one ragged batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _no_rows() -> np.ndarray:
    return np.zeros(0, np.int32)


@dataclass(slots=True)
class Batch:
    """Sequence s owns the rows query_start[s] .. query_start[s+1] of the flat arrays; every array is int32.

    tokens        (rows,) token ids.
    positions     (rows,) absolute position of each token in its sequence; consecutive within a sequence.
    slots         (rows,) where its keys and values go: block * block_size + offset.
    query_start   (seqs + 1,) row intervals, increasing.
    context_lens  (seqs,) keys visible to the sequence's last row: its position + 1.
    block_tables  (seqs, max_blocks) block of each block_size positions; unused entries are 0 and never read.
    adapters      (seqs,) LoRA slot or -1.
    output_rows   (outputs,) rows whose logits are wanted, increasing.
    tap_layer     residual stream after this layer is wanted at `output_rows` (0: embeddings), or -1.
    rope_positions (rows,) the token's place in the text where dropped keys make it more than `positions`, its place in
                  the cache; None: the same.
    inputs        (rows, hidden) float32: the residual stream, for a part of a network that begins behind a layer
                  (`models.part`), which looks at no token; None for a whole one.
    """

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    query_start: np.ndarray
    context_lens: np.ndarray
    block_tables: np.ndarray
    adapters: np.ndarray
    output_rows: np.ndarray = field(default_factory=_no_rows)
    tap_layer: int = -1
    rope_positions: np.ndarray | None = None
    inputs: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        return len(self.tokens)

    @property
    def num_seqs(self) -> int:
        return len(self.context_lens)
