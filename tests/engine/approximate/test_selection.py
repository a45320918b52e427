"""What stays, against references written as the papers' words: loops over heads, keys and neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.engine.approximate import selection
from shoal.engine.approximate.core_neurons import cluster, count_core, most_frequent
from shoal.engine.approximate.lookahead import draft, follow, look_up
from shoal.engine.approximate.selection import POOL, PROMPT_POOL, PROMPT_WINDOW, SINKS, WINDOW


def pooled(scores: list[float], width: int) -> list[float]:
    half = width // 2
    return [max(scores[max(0, i - half) : i + half + 1]) for i in range(len(scores))]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_score_selection_equals_the_naive_one(data: st.DataObject) -> None:
    """SnapKV's and SpecKV's: per head, the best pooled scores before the window, and the window."""
    num_keys = data.draw(st.integers(20, 200))
    budget = data.draw(st.integers(16, num_keys - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    scores = rng.integers(0, 20, (2, 3, num_keys + 5)).astype(np.float32)  # ties, and columns of a lookahead
    kept = selection.keep_by_score(scores, num_keys, budget)
    window = min(WINDOW, budget // 2)
    for layer in range(2):
        for head in range(3):
            before = pooled(scores[layer, head, : num_keys - window].tolist(), POOL)
            best = sorted(range(len(before)), key=lambda i: (-before[i], i))[: budget - window]
            assert kept[layer, head].tolist() == sorted(best) + list(range(num_keys - window, num_keys))


@given(num_keys=st.integers(17, 300), budget=st.integers(16, 299), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_baselines_keep_what_they_say(num_keys: int, budget: int, seed: int) -> None:
    budget = min(budget, num_keys - 1)
    ends = selection.keep_ends((2, 3), num_keys, budget)
    naive = [i for i in range(num_keys) if i < SINKS or i >= num_keys - (budget - SINKS)]
    assert ends.shape == (2, 3, budget)
    assert (ends == naive).all()
    assert selection.end_tokens(num_keys, budget).tolist() == naive
    random = selection.keep_random((2, 3), num_keys, budget, seed)
    assert random.shape == (2, 3, budget)
    assert (np.diff(random, axis=-1) > 0).all()
    assert random.min() >= 0
    assert random.max() == num_keys - 1
    tokens = selection.random_tokens(num_keys, budget, seed)
    assert len(set(tokens.tolist())) == budget


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_prompt_selection_equals_the_naive_one(data: st.DataObject) -> None:
    num_tokens = data.draw(st.integers(70, 260))
    budget = data.draw(st.integers(64, num_tokens - 1))
    scores = np.random.default_rng(data.draw(st.integers(0, 2**16))).integers(0, 9, num_tokens).astype(np.float32)
    window = min(PROMPT_WINDOW, budget // 2)
    chosen = set(range(num_tokens - window, num_tokens))
    peaks = pooled(scores.tolist(), PROMPT_POOL)
    for centre in sorted(range(num_tokens), key=lambda i: (-peaks[i], i)):
        reach = PROMPT_POOL // 2
        for position in sorted(range(centre - reach, centre + reach + 1), key=lambda i: abs(i - centre)):
            if 0 <= position < num_tokens and len(chosen) < budget:
                chosen.add(position)
    assert selection.choose_tokens(scores, budget).tolist() == sorted(chosen)


def test_a_needle_that_is_looked_at_stays_with_its_neighbours() -> None:
    scores = np.zeros((1, 1, 500), np.float32)
    scores[0, 0, 123] = 1
    assert set(range(120, 127)) <= set(selection.keep_by_score(scores, 500, 64)[0, 0].tolist())
    assert 123 not in selection.keep_ends((1, 1), 500, 64)


def test_core_neurons_are_those_most_tokens_use() -> None:
    rng = np.random.default_rng(0)
    activations = rng.standard_normal((2, 40, 96)).astype(np.float32) * 0.1
    core = np.stack([np.sort(rng.permutation(96)[:32]) for _ in range(2)])
    for layer in range(2):
        activations[layer][:, core[layer]] += 3
    counts = count_core(activations)
    assert np.array_equal(most_frequent(counts, 1 / 3), core)
    assert most_frequent(counts, 0.01).shape == (2, 32)  # never none
    assert most_frequent(counts, 0.99).shape == (2, 96)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.floats(0.05, 1))
def test_counts_equal_the_papers_words(seed: int, share: float) -> None:
    rows = np.random.default_rng(seed).standard_normal((1, 7, 64)).astype(np.float32)
    size = max(1, round(share * np.mean([(row > 0).sum() for row in rows[0]])))
    naive = np.zeros(64, int)
    for row in rows[0]:
        for neuron in np.argsort(-row)[:size]:
            naive[neuron] += row[neuron] > 0
    assert np.array_equal(count_core(rows, share)[0], naive)


def test_similar_sentences_share_a_cluster() -> None:
    rng = np.random.default_rng(1)
    kinds = np.eye(3).repeat(10, axis=0) + 0.05 * rng.standard_normal((30, 3))
    counts = np.eye(3, dtype=np.int64).repeat(10, axis=0)[:, None, :]  # sentences of kind i use neuron i
    clusters = cluster(kinds, counts, 3)
    for kind in range(3):
        assert clusters.nearest(np.eye(3)[kind]).argmax() == kind


def test_lookup_copies_what_followed_and_drafts_otherwise() -> None:
    tokens = np.array([5, 6, 7, 8, 9, 1, 2, 5, 6, 7], np.int32)
    assert look_up(tokens, 3).tolist() == [8, 9, 1]
    assert look_up(np.array([1, 2, 3], np.int32), 3).tolist() == []
    asked: list[int] = []

    def next_token(token: int) -> int:
        asked.append(token)
        return token + 1

    assert draft(tokens, 3, next_token).tolist() == [8, 9, 1]
    assert asked == []
    assert draft(np.array([1, 2, 3], np.int32), 3, next_token).tolist() == [4, 5, 6]
    assert asked == [3, 4, 5]
    assert follow(tokens, 2, next_token).tolist() == [8, 9]


@pytest.mark.parametrize("width", [1, 3, 7])
def test_pooling_looks_both_ways(width: int) -> None:
    scores = np.random.default_rng(2).random((2, 3, 20))
    found = selection.max_pool(scores, width)
    assert np.array_equal(found[1, 2], pooled(scores[1, 2].tolist(), width))
