from __future__ import annotations

import pytest

from shoal.engine.prefix_cache import PrefixCache


class Colliding(int):
    """A token id that hashes as every other."""

    def __hash__(self) -> int:
        return 7


def filled(*blocks: tuple[int, ...], namespace: str = "") -> PrefixCache:
    """A cache with one chain of blocks 0, 1, ..."""
    cache = PrefixCache()
    parent: int | str = namespace
    for block, tokens in enumerate(blocks):
        parent = cache.insert(parent, tokens, block).id
    return cache


def blocks(cache: PrefixCache, tokens: list[int], namespace: str = "") -> list[int]:
    return [entry.block for entry in cache.match(namespace, tokens, 2)]


def test_the_longest_run_of_whole_blocks_is_found() -> None:
    cache = filled((1, 2), (3, 4), (5, 6))
    assert blocks(cache, [1, 2, 3, 4, 5, 6, 7]) == [0, 1, 2]
    assert blocks(cache, [1, 2, 3, 4, 5]) == [0, 1]
    assert blocks(cache, [1, 2, 9, 4, 5, 6]) == [0]
    assert blocks(cache, [1]) == []
    assert blocks(cache, [3, 4]) == [], "a block is served only behind the blocks it was computed behind"


def test_colliding_hashes_are_told_apart() -> None:
    cache = PrefixCache()
    one, two = (Colliding(1), Colliding(2)), (Colliding(2), Colliding(1))
    assert hash(one) == hash(two)
    cache.insert("", one, 0)
    assert cache.get("", two) is None
    cache.insert("", two, 1)
    assert blocks(cache, list(two)) == [1]
    assert blocks(cache, list(one)) == [0]


def test_namespaces_never_meet() -> None:
    cache = filled((1, 2), namespace="lora#1")
    assert blocks(cache, [1, 2], "lora#1") == [0]
    assert blocks(cache, [1, 2], "lora#2") == []
    assert blocks(cache, [1, 2]) == []


def test_a_parent_filled_anew_does_not_bring_old_children_back() -> None:
    cache = filled((1, 2), (3, 4))
    cache.forget(1)
    cache.forget(0)
    cache.insert("", (1, 2), 5)
    assert blocks(cache, [1, 2, 3, 4]) == [5]
    assert len(cache) == 1


def test_a_block_is_not_forgotten_before_its_children() -> None:
    cache = filled((1, 2), (3, 4))
    assert not cache.is_leaf(0)
    with pytest.raises(AssertionError):
        cache.forget(0)


def test_the_audit_sees_blocks_served_that_are_not_kept() -> None:
    cache = filled((1, 2), (3, 4))
    cache.check_integrity({0: True, 1: True, 2: False})
    for wrong in ({0: True}, {0: True, 1: True, 2: True}):
        with pytest.raises(AssertionError):
            cache.check_integrity(wrong)
