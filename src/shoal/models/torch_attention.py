"""Paged attention in torch: keys and values lie in blocks, a sequence's block table says where.

Sequences with equally many new rows are attended together, padded to the longest context among them; so a step of pure
decoding is a few calls, and a prefill chunk is one. The slow twin is `kernels.reference.attention`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from shoal.models.batch import Batch
from shoal.models.config import ModelConfig

PADDED_KEYS = 16_384
"""Most padded keys gathered at once when several sequences share a call; bounds memory, not what can run."""

CAPPED_SCORES = 1 << 22
"""Most scores (rows x keys x heads) held at once where a soft cap rules out the fused kernel."""


class PagedCache:
    """Keys and values of every layer: two arrays (layers, blocks * block_size, kv_heads, head_dim)."""

    def __init__(self, config: ModelConfig, num_slots: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.num_layers, num_slots, config.num_kv_heads, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def write(self, layer: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """k, v (rows, kv_heads, head_dim) to `slots` (rows,)."""
        self.keys[layer].index_copy_(0, slots, k)
        self.values[layer].index_copy_(0, slots, v)

    def copy_blocks(self, pairs: Iterable[tuple[int, int]], block_size: int) -> None:
        """Copy block `source` to block `target` in every layer, one pair after the other."""
        for source, target in pairs:
            for array in (self.keys, self.values):
                blocks = array.unflatten(1, (-1, block_size))
                blocks[:, target] = blocks[:, source]


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences that are attended in one call.

    rows   (seqs * queries,) flat rows of the batch, sequence by sequence.
    slots  (seqs, keys) cache slots; a sequence shorter than the longest repeats its last one.
    mask   bool (seqs, 1, queries, keys): the key is in the past, in the window and not padding.
    """

    rows: torch.Tensor
    slots: torch.Tensor
    mask: torch.Tensor


def plan_groups(batch: Batch, window: int | None, block_size: int, device: torch.device) -> list[Group]:
    """Every sequence of the batch in exactly one group."""
    return [_group(batch, seqs, window, block_size, device) for seqs in _partition(batch)]


def _partition(batch: Batch) -> Iterator[np.ndarray]:
    """Sequence numbers, split by number of new rows, then by context length, until each part's padding is bounded."""
    queries = np.diff(batch.query_start)
    order = np.lexsort((batch.context_lens, queries))
    order = order[queries[order] > 0]
    start = 0
    for stop in range(1, len(order) + 1):
        is_last = stop == len(order)
        if is_last or queries[order[stop]] != queries[order[start]] or _is_full(batch, order, start, stop):
            yield order[start:stop]
            start = stop


def _is_full(batch: Batch, order: np.ndarray, start: int, stop: int) -> bool:
    """Whether taking sequence `stop` too (the longest so far) would pad beyond the bound."""
    return (stop + 1 - start) * int(batch.context_lens[order[stop]]) > PADDED_KEYS


def _group(batch: Batch, seqs: np.ndarray, window: int | None, block_size: int, device: torch.device) -> Group:
    first_row = batch.query_start[seqs].astype(np.int64)
    num_queries = int(batch.query_start[seqs[0] + 1]) - int(first_row[0])
    rows = first_row[:, None] + np.arange(num_queries)  # (seqs, queries)
    position = batch.positions[rows].astype(np.int64)
    last_key = batch.context_lens[seqs].astype(np.int64) - 1
    first_key = np.zeros_like(last_key) if window is None else np.maximum(position[:, 0] - window + 1, 0)
    key = first_key[:, None] + np.arange(int((last_key - first_key).max()) + 1)  # (seqs, keys); past the end: padding
    held = np.minimum(key, last_key[:, None])
    slots = batch.block_tables[seqs[:, None], held // block_size].astype(np.int64) * block_size + held % block_size
    on_device = [torch.from_numpy(array).to(device) for array in (rows.reshape(-1), slots, position, key)]
    return Group(on_device[0], on_device[1], _mask(on_device[2], on_device[3], window))


def _mask(position: torch.Tensor, key: torch.Tensor, window: int | None) -> torch.Tensor:
    """(seqs, queries), (seqs, keys) to bool (seqs, 1, queries, keys). Padding lies after every query."""
    seen = key[:, None, :] <= position[:, :, None]
    if window is not None:
        seen &= key[:, None, :] > position[:, :, None] - window
    return seen[:, None]


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, softcap: float
) -> torch.Tensor:
    """q (seqs, queries, heads, head_dim), k and v (seqs, keys, kv_heads, head_dim); the result is shaped like q."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if not softcap:
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
        return out.transpose(1, 2)
    step = max(1, CAPPED_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    spans = [slice(start, start + step) for start in range(0, q.shape[2], step)]
    parts = [_attend_capped(q[:, :, span], k, v, mask[:, :, span], scale, softcap) for span in spans]
    return torch.cat(parts, dim=2).transpose(1, 2)


def _attend_capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, softcap: float
) -> torch.Tensor:
    """The same written out, scores in float32; q is (seqs, heads, queries, head_dim)."""
    shared = q.unflatten(1, (k.shape[1], -1))  # (seqs, kv_heads, heads per kv_head, queries, head_dim)
    scores = (shared @ k[:, :, None].transpose(-1, -2)).to(torch.float32) * scale
    scores = softcap * torch.tanh(scores / softcap)
    weights = torch.softmax(scores.masked_fill(~mask[:, :, None], -torch.inf), dim=-1)
    return (weights.to(v.dtype) @ v[:, :, None]).flatten(1, 2)
