"""Extra steps over a sequence's keys that leave its blocks as they are.

Positions the sequence has computed are run again for their queries; what they write goes to spare blocks (the values
would be the same bits, but a published block is never written). New positions go to the end of `table`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.models.batch import Batch


@dataclass(frozen=True, slots=True)
class View:
    """One sequence as a pass sees it. table: blocks of its positions, room for new ones included; spare: scratch.

    num_computed  positions whose keys and values are in `table`; adapter: LoRA slot or -1.
    """

    table: list[int]
    spare: list[int]
    num_computed: int
    adapter: int
    block_size: int

    def batch(self, tokens: np.ndarray, start: int, wants_logits: bool = False) -> Batch:
        """`tokens` at positions start, start + 1, ...; logits of the last one, or of none."""
        count, size = len(tokens), self.block_size
        positions = np.arange(start, start + count, dtype=np.int32)
        table, spare = np.array(self.table, np.int32), np.array(self.spare, np.int32)
        slots = table[positions // size] * size + positions % size
        again = np.arange(max(0, min(count, self.num_computed - start)), dtype=np.int32)
        slots[: len(again)] = spare[again // size] * size + again % size
        return Batch(
            tokens=np.ascontiguousarray(tokens, np.int32),
            positions=positions,
            slots=slots.astype(np.int32),
            query_start=np.array([0, count], np.int32),
            context_lens=np.array([start + count], np.int32),
            block_tables=table[None],
            adapters=np.array([self.adapter], np.int32),
            output_rows=np.array([count - 1] if wants_logits else [], np.int32),
        )


def blocks_for(num_tokens: int, block_size: int) -> int:
    return -(-num_tokens // block_size)
