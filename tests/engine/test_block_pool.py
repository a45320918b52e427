from __future__ import annotations

import pytest

from shoal.engine.block_pool import BlockPool


def pool_of(num_blocks: int) -> tuple[BlockPool, list[int]]:
    evicted: list[int] = []
    return BlockPool(num_blocks, evicted.append), evicted


def test_blocks_are_handed_out_once_and_come_back() -> None:
    pool, _ = pool_of(3)
    blocks = [pool.allocate() for _ in range(3)]
    assert sorted(block for block in blocks if block is not None) == [0, 1, 2]
    assert pool.allocate() is None
    assert (pool.num_used, pool.num_available) == (3, 0)
    pool.release(1)
    assert pool.allocate() == 1


def test_a_shared_block_is_free_when_its_last_reference_is_gone() -> None:
    pool, _ = pool_of(1)
    assert pool.allocate() == 0
    pool.share(0)
    pool.release(0)
    assert (pool.refs(0), pool.num_available) == (1, 0)
    pool.release(0)
    assert pool.num_available == 1


def test_kept_blocks_are_evicted_last_and_the_longest_unused_first() -> None:
    pool, evicted = pool_of(4)
    for block in range(3):
        assert pool.allocate() == block
        pool.keep(block)
    for block in (1, 0, 2):
        pool.release(block)
    pool.share(1)  # used again: now the newest
    pool.release(1)
    assert (pool.num_cached, pool.num_available) == (3, 4)
    assert [pool.allocate() for _ in range(4)] == [3, 0, 2, 1]
    assert evicted == [0, 2, 1]
    assert not any(pool.is_kept(block) for block in range(4))


def test_a_block_no_longer_kept_is_free_when_released() -> None:
    pool, evicted = pool_of(1)
    assert pool.allocate() == 0
    pool.keep(0)
    pool.unkeep(0)
    pool.release(0)
    assert (pool.num_cached, pool.num_available) == (0, 1)
    assert pool.allocate() == 0
    assert evicted == []


def test_what_cannot_happen_is_an_assertion() -> None:
    pool, _ = pool_of(2)
    for misuse in (pool.share, pool.release, pool.keep, pool.unkeep):
        with pytest.raises(AssertionError):
            misuse(0)


def test_the_audit_sees_a_wrong_count() -> None:
    pool, _ = pool_of(2)
    pool.allocate()
    pool.check_integrity({0: 1})
    for wrong in ({}, {0: 2}, {0: 1, 1: 1}):
        with pytest.raises(AssertionError):
            pool.check_integrity(wrong)


def test_beyond_the_soft_target_it_grows_only_for_what_is_in_use() -> None:
    evicted: list[int] = []
    pool = BlockPool(100, evicted.append, soft_blocks=4)

    def use_and_cache(count: int) -> None:
        for block in [pool.allocate() for _ in range(count)]:
            assert block is not None
            pool.keep(block)
            pool.release(block)

    use_and_cache(4)
    assert (pool.num_touched, evicted) == (4, [])
    use_and_cache(3)
    assert (pool.num_touched, evicted) == (4, [0, 1, 2])
    held = [pool.allocate() for _ in range(6)]
    assert pool.num_touched < 10, "half of what is taken may be cached, not more"
    assert pool.num_cached > 0, "what grows for requests leaves cached prefixes alone where it can"
    assert sorted(held) == sorted(set(held) - {None})
    pool.check_integrity({block: 1 for block in held if block is not None})
    held += [pool.allocate() for _ in range(100 - 6)]
    assert None not in held, "the soft target never refuses a block"
    assert pool.allocate() is None
