"""The compressed tree against the naive trie: every count, probability, tie and removal shows in what it drafts."""

from __future__ import annotations

import gc
import random

import pytest
from naive_trie import NaiveTrie

from shoal.kernels.suffix_tree import Limits, SuffixTree

NO_LIMIT = Limits(cap=64, factor=1.0, offset=3.0, least=0.05)


def same(tree: SuffixTree, naive: NaiveTrie, limits: Limits, context: list[int], *, own: bool = False) -> int:
    """Compare path and tree drafts; how many tokens they have."""
    total = 0
    for is_tree in (False, True):
        expected = naive.look(limits, context, is_tree)
        found = tree.look(limits, None if own else context, is_tree=is_tree)
        assert found.tokens == tuple(expected.tokens)
        assert found.parents == tuple(expected.parents)
        assert found.probs == pytest.approx(expected.probs)
        assert found.score == pytest.approx(expected.score)
        assert not expected.tokens or found.match == expected.match
        total += len(expected.tokens)
    return total


def random_limits(r: random.Random) -> Limits:
    return Limits(r.randint(1, 20), r.choice([0.5, 1.0, 2.0]), r.choice([0.0, 1.0, -1.0]), r.choice([0.05, 0.1, 0.3]))


def stream(r: random.Random, length: int) -> list[int]:
    """Few symbols, with copies of what came before: long and short repeats, periods, ties."""
    out: list[int] = []
    symbols = r.choice([1, 2, 3, 8])
    while len(out) < length:
        if out and r.random() < 0.3:
            start = r.randrange(len(out))
            out += out[start : start + r.randint(1, 12)]
        else:
            out.append(r.randrange(symbols))
    return out[:length]


@pytest.mark.parametrize("shard", range(4))
def test_it_equals_the_naive_trie_through_additions_and_removals(shard: int) -> None:
    drafted = 0
    for seed in range(shard * 60, shard * 60 + 60):
        r = random.Random(seed)
        depth = r.choice([2, 3, 5, 9, 16])
        tree, naive = SuffixTree(depth), NaiveTrie(depth)
        for _ in range(r.randint(2, 8)):
            if naive.sequences and r.random() < 0.35:
                assert tree.drop_oldest() == len(naive.sequences[0])
                naive.drop_oldest()
            else:
                naive.sequences.append(stream(r, r.randint(1, 40)))
                for token in naive.sequences[-1]:
                    tree.extend([token])
                tree.close()
            drafted += same(tree, naive, random_limits(r), stream(r, r.randint(2, 20)))
        assert [list(values) for values in tree.sequences()] == naive.sequences
    assert drafted > 500


@pytest.mark.parametrize("seed", range(12))
def test_the_open_sequence_is_its_own_context(seed: int) -> None:
    """As the tree of one request is used: a look after every token, without a walk from the root."""
    r = random.Random(seed)
    tree, naive = SuffixTree(8), NaiveTrie(8)
    naive.sequences.append([])
    drafted = 0
    for token in stream(r, 60):
        tree.extend([token])
        naive.sequences[0].append(token)
        drafted += same(tree, naive, random_limits(r), naive.sequences[0], own=True)
    assert drafted > 50


def test_nothing_is_left_when_all_is_dropped() -> None:
    r = random.Random(5)
    tree = SuffixTree(16)
    for _ in range(20):
        tree.extend(stream(r, 300))
        tree.close()
    full = tree.num_nodes
    while tree.drop_oldest():
        pass
    assert (tree.num_nodes, tree.num_tokens, tree.num_sequences) == (0, 0, 0)
    assert full > 1000
    assert tree.look(NO_LIMIT, [0, 0, 0]).tokens == ()


def test_the_open_sequence_is_never_dropped() -> None:
    tree = SuffixTree(4)
    tree.extend([1, 2, 1])
    assert tree.drop_oldest() == 0
    tree.close()
    assert tree.drop_oldest() == 3
    assert tree.drop_oldest() == 0


def test_a_long_copy_is_drafted_whole_and_compressed() -> None:
    """1,000 different tokens take one leaf each, not a chain of 64 nodes."""
    tree = SuffixTree(64)
    tree.extend(range(1000))
    tree.close()
    assert tree.num_nodes <= 1001
    found = tree.look(Limits(cap=32), list(range(100, 140)))
    assert (found.tokens, found.match) == (tuple(range(140, 172)), 32)  # a longer match has less of its 64 left
    assert tree.look(Limits(cap=32), [*range(100, 140), 7777]).tokens == ()


def test_memory_goes_with_its_owner() -> None:
    tree = SuffixTree(8)
    finalizer = tree._destroy
    del tree
    gc.collect()
    assert not finalizer.alive
