"""Who owns each cache block: reference counts, a free list, and the blocks worth keeping until room is needed.

Every block is in exactly one state:

    fresh     never used: its memory is not taken yet                  from `_num_touched` on
    free      nobody refers to it, its content is worthless            in `_free`
    cached    nobody refers to it, but the prefix cache may serve it   in `_lru`, oldest first; may be evicted
    used      referred to by one or more sequences                     `_refs` > 0; may be in the prefix cache too

Memory is taken when a fresh block is first used and never given back. So below the soft target, or where more than half
of what was taken is in use, the pool grows rather than forget what is cached; above it cached blocks are evicted first.

The pool knows nothing of tokens. All operations take constant time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping


class BlockPool:
    """Blocks 0 .. num_blocks - 1. `on_evict` is told of each cached block that is about to be reused.

    soft_blocks  blocks that may be touched before any is evicted; 0: all of them.
    """

    def __init__(self, num_blocks: int, on_evict: Callable[[int], None], soft_blocks: int = 0) -> None:
        self.num_blocks = num_blocks
        self._soft_blocks = soft_blocks or num_blocks
        self._num_touched = 0
        self._on_evict = on_evict
        self._refs = [0] * num_blocks
        self._kept = [False] * num_blocks
        self._free: list[int] = []
        self._lru: OrderedDict[int, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` could hand out now."""
        return self.num_blocks - self._num_touched + len(self._free) + len(self._lru)

    @property
    def num_touched(self) -> int:
        """Blocks used at least once, whose memory is taken: 0 .. num_touched - 1."""
        return self._num_touched

    @property
    def num_cached(self) -> int:
        """Unreferenced blocks whose content is kept."""
        return len(self._lru)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_available

    def refs(self, block: int) -> int:
        return self._refs[block]

    def is_kept(self, block: int) -> bool:
        """Whether the prefix cache may serve this block: then nobody may write to it."""
        return self._kept[block]

    def allocate(self) -> int | None:
        """A block with one reference and worthless content: free, fresh, or the longest unused cached one."""
        if self._free:
            block = self._free.pop()
        elif self._num_touched < self.num_blocks and (not self._lru or self._may_grow()):
            block = self._num_touched
            self._num_touched += 1
        elif self._lru:
            block, _ = self._lru.popitem(last=False)
            self._kept[block] = False
            self._on_evict(block)
        else:
            return None
        self._refs[block] = 1
        return block

    def _may_grow(self) -> bool:
        num_used = self._num_touched - len(self._lru)  # where this is asked nothing is free
        return self._num_touched < max(self._soft_blocks, 2 * num_used)

    def share(self, block: int) -> None:
        """One more reference to a used or cached block."""
        if self._refs[block] == 0:
            assert self._kept[block], f"block {block} is free: its content is worthless"
            del self._lru[block]
        self._refs[block] += 1

    def release(self, block: int) -> None:
        """One reference less. Without any left the block is cached if kept, as the newest, else free."""
        assert self._refs[block] > 0, f"block {block} released more often than taken"
        self._refs[block] -= 1
        if self._refs[block] == 0:
            if self._kept[block]:
                self._lru[block] = None
            else:
                self._free.append(block)

    def keep(self, block: int) -> None:
        """The prefix cache serves this used block from now on."""
        assert self._refs[block] > 0, f"block {block} is not used: nobody can have filled it"
        self._kept[block] = True

    def unkeep(self, block: int) -> None:
        """The prefix cache no longer serves this used block."""
        assert self._refs[block] > 0, f"block {block} is not used: evict it instead"
        self._kept[block] = False

    def check_integrity(self, references: Mapping[int, int]) -> None:
        """AssertionError unless states partition the blocks and counts equal `references` (block -> holders)."""
        free, cached = {*self._free, *range(self._num_touched, self.num_blocks)}, set(self._lru)
        assert len(free) == len(self._free) + self.num_blocks - self._num_touched, "a block is free twice"
        assert not free & cached, "a block is both free and cached"
        for block in range(self.num_blocks):
            refs = self._refs[block]
            assert refs == references.get(block, 0), f"block {block}: {refs} counted, {references.get(block, 0)} held"
            assert (refs == 0) == (block in free or block in cached), f"block {block}: lost or handed out while used"
            assert block not in free or not self._kept[block], f"block {block}: free, yet kept"
            assert block not in cached or self._kept[block], f"block {block}: cached, yet not kept"
