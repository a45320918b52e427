"""A plan becomes arrays. Few numpy calls per step: none per token, one per sequence."""

from __future__ import annotations

import numpy as np

from shoal.engine.plan import Plan
from shoal.models.batch import Batch


def build_batch(plan: Plan, block_size: int) -> Batch:
    """The flat arrays of a plan with at least one entry."""
    entries = plan.entries
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


def _block_tables(plan: Plan) -> np.ndarray:
    """(seqs, most blocks), zero where unused. Assignment reads the array module's memory without Python integers."""
    tables = np.zeros((len(plan.entries), max(len(entry.seq.blocks) for entry in plan.entries)), np.int32)
    for row, entry in zip(tables, plan.entries, strict=True):
        row[: len(entry.seq.blocks)] = entry.seq.blocks
    return tables


def _output_rows(plan: Plan, query_start: np.ndarray) -> np.ndarray:
    rows: list[int] = []
    for entry, end in zip(plan.entries, query_start[1:].tolist(), strict=True):
        rows.extend(range(end - entry.num_outputs, end))
    return np.array(rows, np.int32)
