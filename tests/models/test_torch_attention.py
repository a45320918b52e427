"""Paged attention against its contiguous slow twin, over random ragged batches on small scattered blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from shoal.kernels.reference import attention
from shoal.models import torch_attention
from shoal.models.batch import Batch
from shoal.models.tiny import tiny_config
from shoal.models.torch_attention import PagedCache, attend, plan_groups

CPU = torch.device("cpu")
BLOCK, BLOCKS, HEADS, KV_HEADS, DIM = 4, 40, 6, 2, 8


def _cache() -> PagedCache:
    config = replace(tiny_config("llama"), num_kv_heads=KV_HEADS, head_dim=DIM)
    cache = PagedCache(config, BLOCK * BLOCKS, CPU, torch.float32)
    cache.keys.fill_(torch.nan)  # a slot nobody wrote must never be read
    cache.values.fill_(torch.nan)
    return cache


def _batch(random: np.random.Generator, spans: list[tuple[int, int]]) -> Batch:
    """Sequences whose rows are positions start .. stop - 1; blocks in random order."""
    tables = random.permutation(BLOCKS)[: len(spans) * 8].reshape(len(spans), 8).astype(np.int32)
    positions = np.concatenate([np.arange(*span) for span in spans]).astype(np.int32)
    counts = [stop - start for start, stop in spans]
    return Batch(
        tokens=np.zeros_like(positions),
        positions=positions,
        slots=np.concatenate([_slots(table, *span) for table, span in zip(tables, spans, strict=True)]),
        query_start=np.cumsum([0, *counts], dtype=np.int32),
        context_lens=np.array([stop for _, stop in spans], np.int32),
        block_tables=tables,
        adapters=np.full(len(spans), -1, np.int32),
    )


def _slots(table: np.ndarray, start: int, stop: int) -> np.ndarray:
    position = np.arange(start, stop)
    return table[position // BLOCK] * BLOCK + position % BLOCK


SPANS = [(0, 1), (0, 9), (5, 9), (30, 31), (11, 12)]
"""A first token, a whole prompt, a later chunk, two decode steps of different lengths."""


@pytest.mark.parametrize("window", [None, 1, 3, 10])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_equals_the_contiguous_twin(window: int | None, softcap: float) -> None:
    random = np.random.default_rng(7)
    batch, cache, scale = _batch(random, SPANS), _cache(), 0.4
    q = random.standard_normal((batch.num_rows, HEADS, DIM), dtype=np.float32)
    seen = set()
    for group in plan_groups(batch, window, BLOCK, CPU):
        for member, slots in enumerate(group.slots):
            rows = group.rows.view(len(group.slots), -1)[member].numpy()
            seq = int(np.searchsorted(batch.query_start, rows[0], side="right")) - 1
            k, v = (random.standard_normal((SPANS[seq][1], KV_HEADS, DIM), dtype=np.float32) for _ in range(2))
            held = torch.from_numpy(_slots(batch.block_tables[seq], 0, SPANS[seq][1]).astype(np.int64))
            cache.write(1, held, torch.from_numpy(k), torch.from_numpy(v))
            found = attend(
                torch.from_numpy(q[rows])[None], cache.keys[1][slots][None], cache.values[1][slots][None],
                group.mask[member : member + 1], scale, softcap,
            )  # fmt: skip
            expected = attention(q[rows], k, v, scale, window, softcap)
            np.testing.assert_allclose(found[0].numpy(), expected, atol=2e-6)
            seen.update(rows.tolist())
    assert seen == set(range(batch.num_rows))


def test_sequences_with_equally_many_rows_share_a_call() -> None:
    batch = _batch(np.random.default_rng(0), [(4, 5), (0, 3), (20, 21), (6, 9), (8, 9)])
    sizes = sorted(tuple(group.slots.shape) for group in plan_groups(batch, None, BLOCK, CPU))
    assert sizes == [(2, 9), (3, 21)]


def test_groups_stop_before_their_padding_exceeds_the_bound() -> None:
    length = torch_attention.PADDED_KEYS // 3
    table = np.zeros((4, length // BLOCK + 1), np.int32)
    lens = np.array([length, 5, length, length], np.int32)
    zeros = np.zeros(4, np.int32)
    batch = Batch(zeros, lens - 1, zeros, np.arange(5, dtype=np.int32), lens, table, zeros - 1)
    groups = plan_groups(batch, None, BLOCK, CPU)
    assert sum(len(group.slots) for group in groups) == 4
    assert all(group.slots.numel() <= torch_attention.PADDED_KEYS for group in groups)
    assert len(groups) == 2


def test_a_window_gathers_only_what_it_sees() -> None:
    batch = _batch(np.random.default_rng(0), [(30, 31), (20, 24)])
    assert sorted(group.slots.shape[1] for group in plan_groups(batch, 6, BLOCK, CPU)) == [6, 9]


def test_capped_attention_in_pieces_equals_whole() -> None:
    size = 900
    assert size * size * HEADS > torch_attention.CAPPED_SCORES
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, size, heads, DIM, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS))
    mask = torch.ones(1, 1, size, size, dtype=torch.bool).tril()
    pieces = attend(q, k, v, mask, 0.3, 2.0)
    for rows in (slice(0, 7), slice(775, 785), slice(893, 900)):
        torch.testing.assert_close(pieces[:, rows], attend(q[:, rows], k, v, mask[:, :, rows], 0.3, 2.0))


def test_copied_blocks_are_copied_in_every_layer_in_order() -> None:
    cache = _cache()
    for layer in range(2):
        slots = torch.arange(BLOCK)
        cache.write(layer, slots, *(torch.full((BLOCK, KV_HEADS, DIM), float(layer + x)) for x in (1, 3)))
    cache.copy_blocks([(0, 7), (7, 2)], BLOCK)
    for layer in range(2):
        for block in (7, 2):
            assert (cache.keys[layer, block * BLOCK : (block + 1) * BLOCK] == layer + 1).all()
            assert (cache.values[layer, block * BLOCK : (block + 1) * BLOCK] == layer + 3).all()
    assert cache.keys[:, BLOCK : 2 * BLOCK].isnan().all()
