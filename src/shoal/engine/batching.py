"""A plan becomes arrays. Few numpy calls per step: none per token, one per sequence."""

from __future__ import annotations

import numpy as np

from shoal.engine.plan import Plan
from shoal.models.batch import Batch


def build_batch(plan: Plan, block_size: int) -> Batch:
    """The flat arrays of a plan with at least one entry."""
    entries = plan.entries
    if all(entry.num_rows == entry.num_outputs == 1 and entry.seq.stage is None for entry in entries):
        return _decode_batch(plan, block_size)
    starts = np.array([entry.start for entry in entries], np.int32)
    counts = np.array([entry.num_rows for entry in entries], np.int32)
    query_start = np.zeros(len(entries) + 1, np.int32)
    np.cumsum(counts, out=query_start[1:])
    tables = _block_tables(plan)
    num_rows = int(query_start[-1])
    if num_rows == len(entries):
        tokens = np.array([entry.seq.tokens[entry.start] for entry in entries], np.int32)
        positions, owner = starts, np.arange(num_rows)
    else:
        tokens = np.concatenate([np.array(e.seq.tokens[e.start : e.start + e.num_rows], np.int32) for e in entries])
        owner = np.repeat(np.arange(len(entries)), counts)
        positions = np.arange(num_rows, dtype=np.int32) + (starts - query_start[:-1])[owner]
    places = None
    if any(entry.seq.stage is not None for entry in entries):
        dropped = np.array([entry.seq.num_dropped for entry in entries], np.int32)
        places, positions, starts = positions, positions - dropped[owner], starts - dropped
    slots = tables[owner, positions // block_size] * block_size + positions % block_size
    return Batch(
        tokens=tokens,
        positions=positions,
        slots=slots,
        query_start=query_start,
        context_lens=starts + counts,
        block_tables=tables,
        adapters=np.array([entry.seq.adapter for entry in entries], np.int32),
        output_rows=_output_rows(plan, query_start),
        tap_layer=plan.tap,
        rope_positions=places,
    )


def _decode_batch(plan: Plan, block_size: int) -> Batch:
    """One token of each sequence: what nearly every step is, so it makes as few numpy calls as it can."""
    entries = plan.entries
    starts = [entry.start for entry in entries]
    each = np.arange(len(entries) + 1, dtype=np.int32)
    positions = np.array(starts, np.int32)
    blocks = [entry.seq.blocks[at // block_size] for entry, at in zip(entries, starts, strict=True)]
    return Batch(
        tokens=np.array([entry.seq.tokens[at] for entry, at in zip(entries, starts, strict=True)], np.int32),
        positions=positions,
        slots=np.array(blocks, np.int32) * block_size + positions % block_size,
        query_start=each,
        context_lens=positions + 1,
        block_tables=_block_tables(plan),
        adapters=np.array([entry.seq.adapter for entry in entries], np.int32),
        output_rows=each[:-1],
        tap_layer=plan.tap,
    )


def _block_tables(plan: Plan) -> np.ndarray:
    """(seqs, most blocks), zero where unused. Bytes are joined: no block becomes a Python integer."""
    tables = [entry.seq.blocks for entry in plan.entries]
    width = max(map(len, tables))
    joined = b"".join([blocks.tobytes().ljust(4 * width, b"\0") for blocks in tables])
    return np.frombuffer(joined, np.int32).reshape(len(tables), width)


def _output_rows(plan: Plan, query_start: np.ndarray) -> np.ndarray:
    rows: list[int] = []
    for entry, end in zip(plan.entries, query_start[1:].tolist(), strict=True):
        rows.extend(range(end - entry.num_outputs, end))
    return np.array(rows, np.int32)
