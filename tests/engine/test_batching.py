"""A step of nothing but decoding is flattened by a shorter way, to the same arrays."""

from __future__ import annotations

from array import array

import numpy as np

from shoal.engine import batching
from shoal.engine.plan import Entry, Plan
from shoal.engine.sequence import Sequence

BLOCK = 4


def decoding(length: int, blocks: list[int], adapter: int) -> Sequence:
    tokens = np.random.default_rng(length).integers(0, 100, length).tolist()
    return Sequence(array("i", tokens), 100, adapter=adapter, num_computed=length - 1, blocks=array("i", blocks))


def test_a_decode_step_has_the_same_arrays_alone_and_beside_a_prefill() -> None:
    seqs = [decoding(1, [9], -1), decoding(9, [3, 1, 4], 2), decoding(8, [5, 8], -1)]
    entries = [Entry(seq, seq.num_computed, 1, 1) for seq in seqs]
    long = Sequence(array("i", range(12)), 100, blocks=array("i", [20, 21, 22]))
    quick = batching.build_batch(Plan(list(entries)), BLOCK)
    mixed = batching.build_batch(Plan([*entries, Entry(long, 0, 5, 0)]), BLOCK)
    for name in ("tokens", "positions", "slots", "context_lens", "adapters", "output_rows"):
        assert np.array_equal(getattr(quick, name), getattr(mixed, name)[:3]), name
        assert getattr(quick, name).dtype == np.int32, name
    assert quick.query_start.tolist() == [0, 1, 2, 3]
    assert quick.slots.tolist() == [9 * BLOCK, 4 * BLOCK, 8 * BLOCK + 3]
    assert quick.block_tables.tolist() == [[9, 0, 0], [3, 1, 4], [5, 8, 0]]
    assert mixed.tokens[3:].tolist() == [0, 1, 2, 3, 4]
