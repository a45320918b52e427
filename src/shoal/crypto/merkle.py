"""Merkle trees over a power of two of leaves, and proofs of many leaves at once without a node too many.

Leaves and nodes are hashed with keys of their own (BLAKE3, keyed), so that neither is ever taken for the other. The
number of leaves is known to the verifier beforehand, never read from a proof. A proof of some leaves holds the digests
that cannot be computed from them, from the leaves' level up, each level from left to right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

DIGEST_BYTES = 32
LEAF_KEY = bytes(blake3(b"shoal merkle v1 leaf").digest())
NODE_KEY = bytes(blake3(b"shoal merkle v1 node").digest())

Digests = npt.NDArray[np.uint8]
"""(n, 32)."""


class BadMerkleProof(ValueError):
    """The digests do not lead from these leaves to this root."""


@dataclass(frozen=True, slots=True)
class Tree:
    """levels: the leaves' digests first, the root's single one last."""

    levels: tuple[Digests, ...]

    @classmethod
    def of(cls, leaves: Digests) -> Tree:
        """The tree over these leaf digests, a power of two of them."""
        if len(leaves).bit_count() != 1 or leaves.shape[1:] != (DIGEST_BYTES,):
            raise ValueError(f"expected a power of two of {DIGEST_BYTES}-byte digests, found shape {leaves.shape}")
        levels = [leaves]
        while len(levels[-1]) > 1:
            pairs = levels[-1].reshape(-1, 2 * DIGEST_BYTES)
            levels.append(digests(node_digest(pair.tobytes()) for pair in pairs))
        return cls(tuple(levels))

    @property
    def root(self) -> bytes:
        return bytes(self.levels[-1][0])

    def prove(self, indices: Sequence[int]) -> list[bytes]:
        """The digests a verifier of these leaves (ascending, distinct) lacks."""
        return [bytes(self.levels[level][index]) for level, index in missing(indices, len(self.levels) - 1)]


def leaf_digest(leaf: bytes | memoryview) -> bytes:
    return bytes(blake3(leaf, key=LEAF_KEY).digest())


def node_digest(children: bytes) -> bytes:
    """Of the digests of the left and the right child, one after the other."""
    return bytes(blake3(children, key=NODE_KEY).digest())


def digests(values: Iterable[bytes]) -> Digests:
    """Digests as an array, (n, 32)."""
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, DIGEST_BYTES)


def missing(indices: Sequence[int], depth: int) -> list[tuple[int, int]]:
    """(level, index) of every digest that the leaves at `indices` do not give, in a proof's order."""
    found, known = [], list(indices)
    for level in range(depth):
        inside = set(known)
        found += [(level, index ^ 1) for index in known if index ^ 1 not in inside]
        known = sorted({index >> 1 for index in known})
    return found


def check(root: bytes, depth: int, leaves: Sequence[tuple[int, bytes]], proof: Sequence[bytes]) -> None:
    """Whether the digests of some of 2^depth leaves, (index, digest) ascending, belong to `root`.

    Raises BadMerkleProof when indices are out of range, equal or out of order, when there are none, when a digest is
    missing, left over or of another length, and when the root is another.
    """
    indices = [index for index, _ in leaves]
    if not indices or indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >> depth:
        raise BadMerkleProof(f"expected ascending, distinct indices below {1 << depth}, found {indices[:8]}")
    wanted = missing(indices, depth)
    if len(proof) != len(wanted) or any(len(digest) != DIGEST_BYTES for digest in (*proof, *(d for _, d in leaves))):
        raise BadMerkleProof(f"expected {len(wanted)} digests of {DIGEST_BYTES} bytes, found {len(proof)}")
    if _root(dict(leaves), depth, iter(proof)) != root:
        raise BadMerkleProof("expected digests that lead to the root, found another root")


def _root(known: dict[int, bytes], depth: int, proof: Iterable[bytes]) -> bytes:
    rest = iter(proof)
    for _ in range(depth):
        above = {}
        for index, digest in known.items():  # ascending: so are the parents
            if index >> 1 not in above:
                other = known[index ^ 1] if index ^ 1 in known else next(rest)
                above[index >> 1] = node_digest(other + digest if index & 1 else digest + other)
        known = above
    return known[0]
