"""Paged attention in C against plain attention in float64, and against itself under every way of cutting the work."""

from __future__ import annotations

from dataclasses import dataclass

import native_harness as harness
import numpy as np
import pytest
from native_harness import ISAS, Step

from shoal.kernels import native
from shoal.kernels.executor import KV_TYPES, KvType
from shoal.kernels.reference import attention


@dataclass(frozen=True)
class Case:
    heads: int = 6
    kv_heads: int = 2
    dim: int = 32
    block_size: int = 16
    window: int = 0
    softcap: float = 0.0
    kv_type: KvType = "f32"


CASES = [
    Case(),
    Case(kv_type="f16"),
    Case(kv_type="int8"),
    Case(heads=7, kv_heads=1, dim=80, kv_type="f16"),
    Case(heads=4, kv_heads=2, dim=96, kv_type="int8", window=100, softcap=3.0),
    Case(heads=1, kv_heads=1, dim=16),
    Case(heads=8, kv_heads=1, dim=64, block_size=32),
    Case(window=5),
    Case(window=70, block_size=48),
    Case(softcap=2.0, dim=48),
    Case(heads=4, kv_heads=4, dim=256),
    Case(heads=66, kv_heads=1, dim=16),
]


class Attention:
    """A program that writes keys and values and attends; row r of q, k and v is row r of three tables."""

    def __init__(self, library: native.Library, case: Case, tables: list[np.ndarray], num_blocks: int) -> None:
        self.case, self.library = case, library
        self.weights, self.executor = harness.attention(library, case, tables, num_blocks)

    def run(self, pieces: list[tuple[int, int, int, list[int]]]) -> np.ndarray:
        """pieces: (first table row, start position, count, blocks) of each sequence."""
        block = self.case.block_size
        rows = np.concatenate([np.arange(row, row + count) for row, _, count, _ in pieces])
        positions = np.concatenate([np.arange(start, start + count) for _, start, count, _ in pieces])
        owner = np.repeat(np.arange(len(pieces)), [count for _, _, count, _ in pieces])
        widest = max(len(blocks) for *_, blocks in pieces)
        tables = np.array([blocks + [0] * (widest - len(blocks)) for *_, blocks in pieces], np.int32)
        slots = tables[owner, positions // block] * block + positions % block
        starts = np.concatenate([[0], np.cumsum([count for _, _, count, _ in pieces])])
        ends = np.array([start + count for _, start, count, _ in pieces])
        step = Step(*(array.astype(np.int32) for array in (rows, positions, slots, starts, ends)), tables,
                    np.full(len(pieces), -1, np.int32), np.arange(len(rows), dtype=np.int32))  # fmt: skip
        return self.executor.run(step).copy()


def plain(case: Case, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal attention of one whole sequence in float64, over keys and values as the cache keeps them."""
    keys, values = (harness.as_cached(x.reshape(len(q), case.kv_heads, case.dim), case.kv_type) for x in (k, v))
    queries = q.reshape(len(q), case.heads, case.dim)
    out = attention(queries, keys, values, case.dim**-0.5, case.window or None, case.softcap)
    return out.reshape(len(q), -1)


def tables_for(case: Case, rows: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((rows, heads * case.dim)).astype(np.float32)
        for heads in (case.heads, case.kv_heads, case.kv_heads)
    ]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES)
def test_attention_equals_float64_however_the_work_is_cut(case: Case, isa: str) -> None:
    """Two sequences of scattered blocks: whole, in chunks, one by one and side by side, the same to the last bit.

    The longer one has three segments of keys, which few rows share out among threads.
    """
    lengths, rng = (83, 587), np.random.default_rng(9)
    tables = tables_for(case, sum(lengths))
    per_sequence = [-(-length // case.block_size) for length in lengths]
    order = rng.permutation(sum(per_sequence)).tolist()
    blocks = [order[: per_sequence[0]], order[per_sequence[0] :]]
    paged = Attention(native.load(isa), case, tables, len(order))
    whole = paged.run([(0, 0, lengths[0], blocks[0]), (lengths[0], 0, lengths[1], blocks[1])])
    for first, length in ((0, lengths[0]), (lengths[0], lengths[1])):
        part = slice(first, first + length)
        assert np.abs(whole[part] - plain(case, *(table[part] for table in tables))).max() < 2e-5

    first, second = lengths
    for chunk, begin in ((1, 500), (7, 240), (64, 0), (129, 0)):
        for start in range(begin, second, chunk):
            count = min(chunk, second - start)
            got = paged.run([(first + start, start, count, blocks[1])])
            assert np.array_equal(got, whole[first + start : first + start + count])
    mixed = paged.run([(first + second - 1, second - 1, 1, blocks[1]), (60, 60, 23, blocks[0])])
    assert np.array_equal(mixed, np.concatenate([whole[-1:], whole[60:83]]))
    many = paged.run([(first + second - 1, second - 1, 1, blocks[1])] * 9)
    assert np.array_equal(many, np.repeat(whole[-1:], 9, 0))
    paged.executor.close()


@pytest.mark.parametrize("isa", ISAS)
def test_int8_caches_zeros_tiny_and_huge_values_and_keeps_nans_to_themselves(isa: str) -> None:
    """A position that holds an infinity or NaN changes only the rows that see it."""
    case = Case(kv_type="int8")
    tables = tables_for(case, 70)
    _, keys, values = tables
    keys[3], values[5], values[7], values[9] = 0, 0, 1e-42, 3e38
    keys[11] *= 1e-20
    paged = Attention(native.load(isa), case, tables, 5)
    clean = paged.run([(0, 0, 70, [4, 2, 0, 1, 3])])
    assert np.abs(clean[:9] - plain(case, *(table[:9] for table in tables))).max() < 2e-5
    expected = plain(case, *tables)
    assert (np.abs(clean[9:] - expected[9:]) <= 2e-5 * np.abs(expected[9:]).max(1, keepdims=True)).all()
    for table, bad in ((keys, np.nan), (keys, np.inf), (values, np.nan), (values, -np.inf)):
        kept, table[40, 7] = table[40, 7], bad
        poisoned = Attention(paged.library, case, tables, 5)
        found = poisoned.run([(0, 0, 70, [4, 2, 0, 1, 3])])
        table[40, 7] = kept
        assert np.array_equal(found[:40], clean[:40])
        assert np.isnan(found[40:, : 3 * case.dim]).all()
        poisoned.executor.close()
    paged.executor.close()


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_copied_blocks_hold_the_same_keys_and_values(kv_type: KvType) -> None:
    case = Case(kv_type=kv_type)
    tables = tables_for(case, 40)
    paged = Attention(native.load(), case, tables, 6)
    whole = paged.run([(0, 0, 40, [0, 1, 2])])
    paged.executor.copy_blocks([(0, 5), (1, 4), (2, 3)])
    paged.run([(10, 0, 30, [0, 1])])  # overwrite the originals
    assert np.array_equal(paged.run([(39, 39, 1, [5, 4, 3])])[0], whole[39])
    paged.executor.close()
