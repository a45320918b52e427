"""Which block already holds the keys and values of a prefix: a tree whose edges are whole blocks of tokens.

An entry says "this block holds these tokens, after that parent entry". Rules that stay true in this file:
- a hit compares the tokens themselves and the identity of the parent (a dict key's equality; its hash only finds
  the bucket), so two prefixes whose hashes collide are still told apart;
- entry ids are never reused, so nothing can be found below a parent that was evicted and filled anew;
- the parent of a first block is its namespace (an adapter's load, a compression), so namespaces never meet.

The cache trusts its caller on one point: `insert` is called only after the block has really been computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Parent = int | str
"""Entry id of the block before, or the namespace."""


@dataclass(slots=True, eq=False)
class Entry:
    """`id` is unique for the life of the cache; `num_children` counts the entries right below."""

    id: int
    parent: Parent
    tokens: tuple[int, ...]
    block: int
    num_children: int = 0


class PrefixCache:
    def __init__(self) -> None:
        self._ids = itertools.count()
        self._by_key: dict[tuple[Parent, tuple[int, ...]], Entry] = {}
        self._by_block: dict[int, Entry] = {}
        self._by_id: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, parent: Parent, tokens: tuple[int, ...]) -> Entry | None:
        """The entry that holds exactly `tokens` after `parent`."""
        return self._by_key.get((parent, tokens))

    def match(self, namespace: str, tokens: Sequence[int], block_size: int) -> list[Entry]:
        """Entries of the longest cached run of whole blocks at the start of `tokens`."""
        found: list[Entry] = []
        parent: Parent = namespace
        for end in range(block_size, len(tokens) + 1, block_size):
            entry = self.get(parent, tuple(tokens[end - block_size : end]))
            if entry is None:
                break
            found.append(entry)
            parent = entry.id
        return found

    def insert(self, parent: Parent, tokens: tuple[int, ...], block: int) -> Entry:
        """Serve `block` for `tokens` after `parent` from now on. The key must be new."""
        assert (parent, tokens) not in self._by_key, "two blocks for the same prefix"
        entry = Entry(next(self._ids), parent, tokens, block)
        self._by_key[parent, tokens] = self._by_block[block] = self._by_id[entry.id] = entry
        if isinstance(parent, int):
            self._by_id[parent].num_children += 1
        return entry

    def is_leaf(self, block: int) -> bool:
        return self._by_block[block].num_children == 0

    def forget(self, block: int) -> None:
        """Stop serving `block`, which must have no children: they would be unreachable."""
        entry = self._by_block.pop(block)
        assert entry.num_children == 0, f"block {block} is forgotten before the blocks after it"
        del self._by_key[entry.parent, entry.tokens], self._by_id[entry.id]
        if isinstance(entry.parent, int):
            self._by_id[entry.parent].num_children -= 1

    def check_integrity(self, kept: Mapping[int, bool]) -> None:
        """AssertionError unless the three indices agree, parents exist, and exactly the `kept` blocks are served."""
        children: dict[int, int] = {}
        for key, entry in self._by_key.items():
            assert key == (entry.parent, entry.tokens), f"entry {entry.id} is filed under another's key"
            assert self._by_block.get(entry.block) is entry, f"block {entry.block} serves two prefixes"
            assert self._by_id.get(entry.id) is entry, f"entry {entry.id} is not found by its id"
            if isinstance(entry.parent, int):
                assert entry.parent in self._by_id, f"entry {entry.id} has lost its parent"
                children[entry.parent] = children.get(entry.parent, 0) + 1
        assert len(self._by_key) == len(self._by_block) == len(self._by_id), "an index has left-overs"
        assert all(entry.num_children == children.get(entry.id, 0) for entry in self._by_id.values())
        assert set(self._by_block) == {block for block, is_kept in kept.items() if is_kept}
