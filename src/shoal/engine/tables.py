"""Block tables of sequences: sharing, copy-on-write, publishing to the prefix cache. Policy is the scheduler's.

Rules that stay true in this file:
- a block is written by one sequence only, and never once the prefix cache serves it (`_own_last`);
- a block is published only for positions below `num_computed`, which are really computed, and never with a draft;
- what approximate inference computed or compressed is never published, and its tokens are never looked up;
- whoever holds a published block holds all blocks before it, and blocks are released last first: so a cached
  block is always evicted before the blocks it continues.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as List

from shoal.engine.block_pool import BlockPool
from shoal.engine.prefix_cache import Entry, Parent, PrefixCache
from shoal.engine.sequence import Sequence, int_array

Copies = list[tuple[int, int]]
"""(source block, destination block), to be executed in order before the step's forward."""


def num_shareable(seq: Sequence) -> int:
    """Leading positions of `seq` whose keys and values are those of the whole model."""
    return len(seq.tokens) if seq.stage is None else seq.stage.num_shareable


class BlockTables:
    def __init__(self, num_blocks: int, block_size: int, *, shares_prefixes: bool = True, soft_blocks: int = 0) -> None:
        self.block_size = block_size
        self._shares_prefixes = shares_prefixes
        self.cache = PrefixCache()
        self.pool = BlockPool(num_blocks, self.cache.forget, soft_blocks)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    # ---- a sequence comes and goes ----------------------------------------------------------------------

    def match(self, seq: Sequence) -> list[Entry]:
        """Cached blocks `seq` can start from. A position that owes an output is computed even if cached."""
        end = seq.outputs_from
        if seq.stage is not None:  # it pauses after computing, so at least one token is computed
            end = min(end, max(0, seq.stage.num_shareable - 1))
        end = end // self.block_size * self.block_size
        return self.cache.match(seq.namespace, seq.tokens[:end], self.block_size)

    def has_room(self, seq: Sequence, matched: List[Entry]) -> bool:
        """Whether all tokens of `seq` would fit now, starting from `matched`."""
        revived = sum(self.pool.refs(entry.block) == 0 for entry in matched)
        return self.pool.num_available - revived >= self.blocks_for(len(seq.tokens)) - len(matched)

    def is_being_computed(self, seq: Sequence, num_matched: int, others: Iterable[Sequence]) -> bool:
        """Whether one of `others` will publish the block that `seq` needs next, after `num_matched` cached ones."""
        end = (num_matched + 1) * self.block_size
        if end > min(seq.outputs_from, num_shareable(seq)) or not self._shares_prefixes:
            return False
        tokens = seq.tokens[:end]
        return any(
            len(other.chain) == num_matched
            and other.namespace == seq.namespace
            and num_shareable(other) >= end
            and not other.num_dropped
            and other.tokens[:end] == tokens
            for other in others
        )

    def adopt(self, seq: Sequence, matched: List[Entry]) -> None:
        for entry in matched:
            self.pool.share(entry.block)
            seq.blocks.append(entry.block)
            seq.chain.append(entry.id)
        seq.num_computed = len(matched) * self.block_size

    def fork(self, source: Sequence, child: Sequence) -> None:
        """Let `child`, which has no blocks, refer to the blocks of `source`."""
        for block in source.blocks:
            self.pool.share(block)
        child.blocks = source.blocks[:]
        child.chain = source.chain[:]
        child.num_computed = source.num_computed

    def release(self, seq: Sequence) -> None:
        """Give every block back; published ones stay cached until room is needed."""
        while seq.blocks:
            self.pool.release(seq.blocks.pop())
        seq.chain.clear()
        seq.num_computed = 0
        if seq.stage is not None:
            seq.stage.lose_blocks()

    def replace(self, seq: Sequence, blocks: Iterable[int], num_dropped: int) -> None:
        """Give `seq` other blocks, with a reference each, that hold all its positions but `num_dropped`."""
        assert seq.stage is not None, "only an approximated sequence drops keys"
        for block in reversed(seq.blocks):
            self.pool.release(block)
        seq.blocks, seq.chain = int_array(blocks), []
        seq.stage.dropped = num_dropped

    # ---- it grows and shrinks ---------------------------------------------------------------------------

    def extend(self, seq: Sequence, end: int, copies: Copies) -> int:
        """Make positions num_computed .. end - 1 writable, as far as blocks go; return where that ends."""
        covered = len(seq.blocks) * self.block_size + seq.num_dropped
        if covered > seq.num_computed and not self._own_last(seq, copies):
            return seq.num_computed
        while covered < end:
            block = self.pool.allocate()
            if block is None:
                break
            seq.blocks.append(block)
            covered += self.block_size
        return min(end, covered)

    def _own_last(self, seq: Sequence, copies: Copies) -> bool:
        """Copy-on-write: the last, partly filled block must be ours alone. False if there is no room for a copy."""
        shared = seq.blocks[-1]
        if self.pool.refs(shared) == 1 and self._unpublish(shared):
            return True
        own = self.pool.allocate()
        if own is None:
            return False
        copies.append((shared, own))
        seq.blocks[-1] = own
        self.pool.release(shared)
        return True

    def publish(self, seq: Sequence) -> None:
        """Offer newly filled blocks to the prefix cache; where it has one already, use that and free ours."""
        if not self._shares_prefixes or seq.num_dropped:
            return
        certain = min(seq.num_computed, len(seq.tokens) - seq.num_drafted, num_shareable(seq))
        for index in range(len(seq.chain), certain // self.block_size):
            parent, tokens = self.key(seq, index)
            entry = self.cache.get(parent, tokens)
            block = seq.blocks[index]
            if entry is None:
                entry = self.cache.insert(parent, tokens, block)
                self.pool.keep(block)
            else:
                self.pool.share(entry.block)
                self.pool.release(block)
                seq.blocks[index] = entry.block
            seq.chain.append(entry.id)

    def key(self, seq: Sequence, index: int) -> tuple[Parent, tuple[int, ...]]:
        """What block `index`, the first that is not published, is found by."""
        parent = seq.chain[index - 1] if index else seq.namespace
        return parent, tuple(seq.tokens[index * self.block_size : (index + 1) * self.block_size])

    def truncate(self, seq: Sequence) -> None:
        """Drop what lies beyond `num_computed`, from the prefix cache too where nobody else can want it."""
        while len(seq.chain) > seq.num_computed // self.block_size:
            block = seq.blocks[len(seq.chain) - 1]
            seq.chain.pop()
            if self.pool.refs(block) == 1:
                self._unpublish(block)
        while len(seq.blocks) > self.blocks_for(seq.num_computed - seq.num_dropped):
            self.pool.release(seq.blocks.pop())

    def _unpublish(self, block: int) -> bool:
        """Take `block` out of the prefix cache unless others continue it; whether it is out."""
        if not self.pool.is_kept(block):
            return True
        if not self.cache.is_leaf(block):
            return False
        self.cache.forget(block)
        self.pool.unkeep(block)
        return True

    # ---- audit ------------------------------------------------------------------------------------------

    def check_integrity(self, holders: Iterable[Sequence]) -> None:
        """AssertionError unless pool and cache agree with the block tables of `holders`, all sequences alive."""
        references: dict[int, int] = {}
        for seq in holders:
            kept = seq.num_computed - seq.num_dropped
            assert len(seq.blocks) == self.blocks_for(kept), "blocks do not cover what is computed"
            assert not (seq.chain and seq.num_dropped), "a compressed cache is published"
            assert len(seq.chain) <= num_shareable(seq) // self.block_size, "what is not whole is published"
            assert len(seq.chain) <= seq.num_computed // self.block_size, "published before computed"
            for index, entry_id in enumerate(seq.chain):
                entry = self.cache.get(*self.key(seq, index))
                assert entry is not None, "a published block is no longer served"
                assert (entry.id, entry.block) == (entry_id, seq.blocks[index]), "a published block was swapped"
            for block in seq.blocks:
                references[block] = references.get(block, 0) + 1
        self.pool.check_integrity(references)
        self.cache.check_integrity({block: self.pool.is_kept(block) for block in range(self.pool.num_blocks)})
