"""Salted commitments and a Merkle tree over them. BLAKE3 with a purpose for every kind of input; nothing of our own.

    salt --keyed by label--> one salt per commitment --> commitment = H(salt of the label, data)

Hiding: a commitment says nothing about its data to whoever lacks its salt (32 random bytes): guesses cannot be tested.
Binding: two openings of one commitment are a collision of BLAKE3. Lengths are fixed before data, leaves and nodes have
different purposes (RFC 6962 section 2.1), and the root binds the number of leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.crypto.hashes import blake3_digest

SALT_BYTES = 32
_SALT = "shoal receipt salt v1"
_DATA = "shoal receipt commitment v1"
_NODE = "shoal receipt merkle node v1"
_ROOT = "shoal receipt merkle root v1"


def salt_of(salt: bytes, label: str) -> bytes:
    """The salt of one commitment. It may be shown without giving away the others: each is a hash of a secret."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"expected a salt of {SALT_BYTES} bytes, found {len(salt)}")
    return blake3_digest(_SALT, salt + label.encode())


def commit(salt: bytes, label: str, data: bytes) -> bytes:
    """The commitment to `data` under the salt that belongs to `label`."""
    return committed(salt_of(salt, label), data)


def committed(own_salt: bytes, data: bytes) -> bytes:
    """The commitment to `data`, given its own salt."""
    return blake3_digest(_DATA, own_salt + data)


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaves of 32 bytes: halves as in RFC 6962, then the number of leaves."""
    return _rooted(_subtree(leaves), len(leaves))


@dataclass(frozen=True, slots=True)
class SegmentOpening:
    """One leaf shown: its salt, and the hashes beside the way up, lowest first."""

    index: int
    num_leaves: int
    salt: bytes
    path: tuple[bytes, ...]


def open_leaf(leaves: Sequence[bytes], index: int, own_salt: bytes) -> SegmentOpening:
    """What shows that leaf `index` is in the tree, without showing another."""
    path: list[bytes] = []
    _walk(leaves, index, path)
    return SegmentOpening(index, len(leaves), own_salt, tuple(path))


def is_leaf(root: bytes, opening: SegmentOpening, data: bytes) -> bool:
    """Whether the tree behind `root` has `data` at the place that `opening` says."""
    if not 0 <= opening.index < opening.num_leaves <= 2**32:
        return False
    sides = _sides(opening.index, opening.num_leaves)
    if len(sides) != len(opening.path):
        return False
    node = committed(opening.salt, data)
    for is_left, beside in zip(reversed(sides), opening.path, strict=True):
        node = blake3_digest(_NODE, node + beside if is_left else beside + node)
    return _rooted(node, opening.num_leaves) == root


def _rooted(node: bytes, num_leaves: int) -> bytes:
    return blake3_digest(_ROOT, num_leaves.to_bytes(8, "big") + node)


def _half(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtree(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else bytes(32)
    half = _half(len(leaves))
    return blake3_digest(_NODE, _subtree(leaves[:half]) + _subtree(leaves[half:]))


def _walk(leaves: Sequence[bytes], index: int, path: list[bytes]) -> None:
    if len(leaves) <= 1:
        return
    half = _half(len(leaves))
    if index < half:
        _walk(leaves[:half], index, path)
        path.append(_subtree(leaves[half:]))
    else:
        _walk(leaves[half:], index - half, path)
        path.append(_subtree(leaves[:half]))


def _sides(index: int, count: int) -> list[bool]:
    """From the top: whether the leaf is in the left half."""
    sides = []
    while count > 1:
        half = _half(count)
        sides.append(index < half)
        index, count = (index, half) if index < half else (index - half, count - half)
    return sides
