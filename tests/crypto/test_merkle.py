"""Proofs of any set of leaves are accepted; anything else about them is not."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from shoal.crypto import merkle
from shoal.crypto.merkle import BadMerkleProof, Tree


def tree(depth: int) -> tuple[Tree, list[bytes]]:
    leaves = [merkle.leaf_digest(index.to_bytes(4, "little")) for index in range(1 << depth)]
    return Tree.of(merkle.digests(leaves)), leaves


def test_every_set_of_eight_leaves() -> None:
    whole, leaves = tree(3)
    for count in range(1, 9):
        for chosen in combinations(range(8), count):
            proof = whole.prove(chosen)
            opened = [(index, leaves[index]) for index in chosen]
            merkle.check(whole.root, 3, opened, proof)
            assert len(proof) <= 3 * count
            for at in range(len(proof)):  # every digest counts
                bad = [*proof[:at], bytes(32), *proof[at + 1 :]]
                with pytest.raises(BadMerkleProof, match="another root"):
                    merkle.check(whole.root, 3, opened, bad)
    assert whole.prove(range(8)) == []


def test_a_tree_of_one_leaf() -> None:
    whole, leaves = tree(0)
    assert whole.root == leaves[0]
    merkle.check(whole.root, 0, [(0, leaves[0])], [])


def test_duplicate_unsorted_missing_and_extra_parts_are_refused() -> None:
    whole, leaves = tree(4)
    proof = whole.prove([3, 9])
    good = [(3, leaves[3]), (9, leaves[9])]
    merkle.check(whole.root, 4, good, proof)
    for bad in (
        [], good[::-1], [good[0]] * 2, [*good, good[1]], [(3, leaves[3])], [(-1, leaves[3]), good[1]],
        [good[0], (16, leaves[9])], [good[0], (25, leaves[9])],
    ):  # fmt: skip
        with pytest.raises(BadMerkleProof):
            merkle.check(whole.root, 4, bad, proof)
    for bad_proof in (proof[1:], proof[:-1], [*proof, proof[0]], [], proof[::-1], [*proof[:-1], proof[-1][:31]]):
        with pytest.raises(BadMerkleProof):
            merkle.check(whole.root, 4, good, bad_proof)
    for bad_leaves in ([(2, leaves[3]), good[1]], [(3, leaves[2]), good[1]], [(3, leaves[9]), (9, leaves[3])]):
        with pytest.raises(BadMerkleProof, match="another root"):
            merkle.check(whole.root, 4, bad_leaves, proof)
    with pytest.raises(BadMerkleProof):
        merkle.check(whole.root, 4, [(3, leaves[3][:31]), good[1]], proof)
    with pytest.raises(BadMerkleProof):
        merkle.check(whole.root, 5, good, proof)
    with pytest.raises(BadMerkleProof):
        merkle.check(whole.root, 3, good[:1], whole.prove([3])[:3])


def test_a_node_is_not_a_leaf() -> None:
    """Were leaves and nodes hashed alike, two digests would pass for a leaf of the level above."""
    whole, leaves = tree(1)
    assert merkle.leaf_digest(leaves[0] + leaves[1]) != merkle.node_digest(leaves[0] + leaves[1]) == whole.root


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Tree.of(np.zeros((3, 32), np.uint8))
    with pytest.raises(ValueError, match="power of two"):
        Tree.of(np.zeros((4, 31), np.uint8))
