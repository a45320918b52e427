"""Importance of keys and compaction of the cache in C, against plain numpy; partial networks against shorter ones."""

from __future__ import annotations

from dataclasses import dataclass

import native_harness as harness
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_harness import ISAS, Step

from shoal.core.errors import Unsupported
from shoal.kernels import native
from shoal.kernels.approximation import PartialSteps
from shoal.kernels.executor import KV_TYPES, KvType
from shoal.kernels.reference import importance, probabilities


@dataclass(frozen=True)
class Case:
    heads: int = 6
    kv_heads: int = 2
    dim: int = 32
    block_size: int = 16
    window: int = 0
    softcap: float = 0.0
    kv_type: KvType = "f32"

    def tables(self, rows: int, seed: int) -> list[np.ndarray]:
        """q, k, v of every position: float32 (rows, heads * dim)."""
        rng = np.random.default_rng(seed)
        widths = [heads * self.dim for heads in (self.heads, self.kv_heads, self.kv_heads)]
        return [rng.standard_normal((rows, width)).astype(np.float32) for width in widths]


class Attention:
    """Row i of three tables are the query, key and value of position i; they are cached as layer 1 of 2."""

    def __init__(self, case: Case, tables: list[np.ndarray], num_blocks: int, isa: str | None = None) -> None:
        self.case = case
        self.weights, self.executor = harness.attention(native.load(isa), case, tables, num_blocks)

    def step(self, start: int, end: int, blocks: np.ndarray) -> Step:
        at = np.arange(start, end, dtype=np.int32)
        slots = blocks[at // self.case.block_size] * self.case.block_size + at % self.case.block_size
        rows = np.arange(end - start, dtype=np.int32)
        return Step(at, at, slots.astype(np.int32), np.array([0, end - start], np.int32), np.array([end], np.int32),
                    blocks[None].astype(np.int32), np.array([-1], np.int32), rows)  # fmt: skip


def as_cached(case: Case, table: np.ndarray) -> np.ndarray:
    """(positions, kv heads, dim) as the cache keeps them, in float64."""
    return harness.as_cached(table.reshape(len(table), case.kv_heads, case.dim), case.kv_type)


CASES = [Case(), Case(kv_type="f16"), Case(kv_type="int8"), Case(heads=1, kv_heads=1, dim=16), Case(window=9),
         Case(softcap=2.0, dim=48), Case(heads=8, kv_heads=1, dim=64, block_size=48),
         Case(heads=66, kv_heads=1, dim=16)]  # fmt: skip


@pytest.mark.parametrize("is_mean", [False, True])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_importance_is_the_largest_or_mean_probability(case: Case, is_mean: bool) -> None:
    num_keys, num_rows = 133, 37
    tables = case.tables(num_keys, seed=3)
    for isa in ISAS:
        net = Attention(case, tables, num_blocks=12, isa=isa)
        blocks = np.array([7, 2, 9, 4, 1, 0, 11, 3, 10])
        steps = PartialSteps(net.executor)
        net.executor.run(net.step(0, num_keys - num_rows, blocks))
        row_weights = np.linspace(0.1, 1, num_rows).astype(np.float32)
        found = steps.importance(net.step(num_keys - num_rows, num_keys, blocks), row_weights, is_mean)
        q = tables[0].reshape(num_keys, case.heads, case.dim)[-num_rows:]
        weights = probabilities(q, as_cached(case, tables[1]), case.dim**-0.5, case.window or None, case.softcap)
        expected = importance(weights, case.kv_heads, row_weights, is_mean)
        assert found.shape == (2, case.kv_heads, num_keys)
        assert not found[0].any()  # the program has no layer 0
        np.testing.assert_allclose(found[1], expected, rtol=2e-4, atol=1e-6)
        net.executor.close()


def test_a_step_with_importance_computes_what_it_does_without() -> None:
    case = Case()
    net = Attention(case, case.tables(80, seed=5), num_blocks=8)
    blocks = np.array([3, 1, 5, 2, 0])
    step = net.step(0, 80, blocks)
    plain = net.executor.run(step).copy()
    PartialSteps(net.executor).importance(step, np.ones(80, np.float32), False)
    again = net.executor.run(step)
    assert np.array_equal(plain, again)
    net.executor.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_compaction_keeps_exactly_the_chosen_keys(data: st.DataObject) -> None:
    """Every kept pair's bits, in order; nothing else of the cache changes."""
    case = Case(
        heads=2, kv_heads=data.draw(st.integers(1, 3)), dim=16 * data.draw(st.integers(1, 3)),
        block_size=16 * data.draw(st.integers(1, 3)), kv_type=data.draw(st.sampled_from(KV_TYPES)),
    )  # fmt: skip
    case = Case(case.kv_heads, case.kv_heads, case.dim, case.block_size, kv_type=case.kv_type)
    num_keys = data.draw(st.integers(1, 120))
    count = data.draw(st.integers(1, num_keys))
    seed = data.draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    tables = case.tables(num_keys, seed)
    needed = -(-num_keys // case.block_size)
    order = rng.permutation(2 * needed + 1)
    source, target = order[:needed], order[needed : needed + -(-count // case.block_size)]
    net = Attention(case, tables, num_blocks=2 * needed + 1)
    net.executor.run(net.step(0, num_keys, source))
    before = [cached_positions(net, kind) for kind in (0, 1)]
    kept = np.stack([
        np.stack([np.sort(rng.permutation(num_keys)[:count]) for _ in range(case.kv_heads)]) for _ in range(2)
    ]).astype(np.int32)  # fmt: skip
    net.executor.keep_positions(source, target, kept)
    slots = target[np.arange(count) // case.block_size] * case.block_size + np.arange(count) % case.block_size
    for kind, old in enumerate(before):
        expected = old.copy()
        for layer in range(2):
            for head in range(case.kv_heads):
                p = kept[layer, head]
                from_slots = source[p // case.block_size] * case.block_size + p % case.block_size
                expected[layer, head, slots] = old[layer, head, from_slots]
        assert np.array_equal(cached_positions(net, kind), expected)
        assert old[1].any(), "the cache was empty"
    net.executor.close()


def cached_positions(net: Attention, kind: int) -> np.ndarray:
    """Keys (0) or values (1) as raw bytes, an int8 position's scale behind them: (layers, kv heads, slots, bytes)."""
    cache, case = net.executor.cache, net.case
    width = {"f32": 4, "f16": 2, "int8": 1}[case.kv_type]
    blocks = (net.executor._keys, net.executor._values)[kind].reshape(2, cache.num_blocks, cache.block_bytes)
    elements = cache.num_kv_heads * cache.block_size * cache.head_dim * width
    cells, scales = blocks[..., :elements], blocks[..., elements:]
    if kind == 0:
        grouped = cells.reshape(2, cache.num_blocks, case.kv_heads, case.block_size // 16, case.dim, 16, width)
        cells = grouped.swapaxes(4, 5)
    shape = (2, cache.num_blocks, case.kv_heads, case.block_size, -1)
    rows = np.concatenate([cells.reshape(shape), scales.reshape(shape)], 4) if scales.size else cells.reshape(shape)
    return rows.swapaxes(1, 2).reshape(2, case.kv_heads, cache.num_blocks * case.block_size, -1).copy()


def test_a_network_without_taps_cannot_exit_early() -> None:
    case = Case()
    net = Attention(case, case.tables(4, seed=0), num_blocks=2)
    with pytest.raises(Unsupported, match="layers"):
        PartialSteps(net.executor).run(net.step(0, 4, np.array([0])), layers=3)
    net.executor.close()
