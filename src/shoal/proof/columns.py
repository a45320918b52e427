"""Digests of a matrix's columns, in blocks of rows as they come, and a Merkle tree over them.

A column's digest is `merkle.leaf_digest` of its words, little-endian, from the first row down: the BLAKE3 of the whole
column, so whoever opens a column needs only that. Its chunks are 1,024 bytes, hence blocks of 128 rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from shoal.crypto import merkle
from shoal.crypto.merkle import Digests, Tree
from shoal.proof import native
from shoal.proof.field import Base

BLOCK_ROWS = 128
_LEAF = np.frombuffer(merkle.LEAF_KEY, "<u4").astype(np.uint32)
_NODE = np.frombuffer(merkle.NODE_KEY, "<u4").astype(np.uint32)

Values = npt.NDArray[np.uint32]
"""Chaining values of all columns, (8, columns)."""


def column_digests(blocks: Iterator[Base], rows: int, columns: int) -> Digests:
    """(columns, 32). blocks: (128, columns) each, the last one shorter; together `rows` rows."""
    if native.function("proof_column_chunk", "pqqqpip") is None or columns % 16:
        parts = [block.T.astype("<u8").tobytes() for block in blocks]
        return merkle.digests(merkle.leaf_digest(column) for column in _columns(parts, columns))
    values = _subtree(blocks, 0, -(-rows // BLOCK_ROWS), True)
    return np.ascontiguousarray(values.T).astype("<u4").view(np.uint8)


def column_bytes(column: Base) -> bytes:
    """What `merkle.leaf_digest` is taken of."""
    return column.astype("<u8").tobytes()


def tree(leaves: Digests) -> Tree:
    """As `Tree.of`."""
    call = native.function("proof_hash_pairs", "pqpp")
    if call is None:
        return Tree.of(leaves)
    levels = [np.ascontiguousarray(leaves)]
    while len(levels[-1]) > 1:
        above = np.empty((len(levels[-1]) // 2, merkle.DIGEST_BYTES), np.uint8)
        call(native.pointer(levels[-1]), len(above), native.pointer(_NODE), native.pointer(above))
        levels.append(above)
    return Tree(tuple(levels))


def _columns(parts: list[bytes], columns: int) -> Iterator[bytes]:
    for index in range(columns):
        sizes = [len(part) // columns for part in parts]
        yield b"".join(part[index * size : (index + 1) * size] for part, size in zip(parts, sizes, strict=True))


def _subtree(blocks: Iterator[Base], first: int, count: int, is_root: bool) -> Values:
    """BLAKE3's tree over chunks first .. first + count - 1: the left subtree is the greatest power of two that leaves a
    right one."""
    if count == 1:
        return _chunk(next(blocks), first, is_root)
    left = 1 << (count - 1).bit_length() - 1
    return _parent(_subtree(blocks, first, left, False), _subtree(blocks, first + left, count - left, False), is_root)


def _chunk(block: Base, counter: int, is_root: bool) -> Values:
    rows, columns = block.shape
    block, out = np.ascontiguousarray(block), np.empty((8, columns), np.uint32)
    key = native.pointer(_LEAF)
    if call := native.function("proof_column_chunk", "pqqqpip"):
        call(native.pointer(block), rows, columns, counter, key, int(is_root), native.pointer(out))
    return out


def _parent(left: Values, right: Values, is_root: bool) -> Values:
    out = np.empty_like(left)
    if call := native.function("proof_column_parent", "ppqpip"):
        parts = (native.pointer(left), native.pointer(right))
        call(*parts, left.shape[1], native.pointer(_LEAF), int(is_root), native.pointer(out))
    return out
