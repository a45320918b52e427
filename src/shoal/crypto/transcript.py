"""Fiat and Shamir's transcript: what a verifier would have said at random is a hash of everything said before.

Every item is absorbed with a label and both lengths, so no two different sequences of items are the same bytes; a
challenge is absorbed too. The chain is BLAKE3, h <- H(h, kind, label, item). Field elements are drawn by rejection
from its output stream: uniform below the modulus.

What this does not protect against: circuits that compute this hash themselves (eprint 2025/118 breaks GKR so); the
random oracle is an assumption, and the circuit has to be fixed before the transcript starts.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from blake3 import blake3

if TYPE_CHECKING:
    from blake3 import blake3 as Blake3

MODULUS = 0xFFFF_FFFF_0000_0001
"""Goldilocks' prime; both coordinates of a challenge are below it."""

_PURPOSE = "shoal transcript v1"


class Transcript:
    """The running hash of one protocol run. Prover and verifier make the same calls in the same order."""

    def __init__(self, protocol: str) -> None:
        self._state = bytes(32)
        self.absorb("protocol", protocol.encode())

    def absorb(self, label: str, item: bytes | bytearray | memoryview) -> None:
        """Binds everything later to this item."""
        self._state = self._step(b"a", label, item).digest()

    def absorb_int(self, label: str, value: int) -> None:
        """A non-negative integer below 2^64."""
        self.absorb(label, struct.pack("<Q", value))

    def absorb_elements(self, label: str, elements: npt.NDArray[np.uint64]) -> None:
        """Base or extension elements as little-endian words. Their shape is fixed by the label or an earlier item."""
        self.absorb(label, np.ascontiguousarray(elements, "<u8").tobytes())

    def absorb_pair(self, label: str, element: tuple[int, int]) -> None:
        """One extension element."""
        self.absorb(label, struct.pack("<QQ", *element))

    def challenge(self, label: str) -> tuple[int, int]:
        """A uniform element of the extension field."""
        first, second = self.challenges(label, 1)[0].tolist()
        return (first, second)

    def challenges(self, label: str, count: int) -> npt.NDArray[np.uint64]:
        """`count` uniform elements of the extension field, (count, 2)."""
        stream = self._stream(label, count)
        words = np.zeros(0, np.uint64)
        while len(words) < 2 * count:
            drawn = stream.words(2 * count - len(words))
            words = np.concatenate([words, drawn[drawn < MODULUS]])
        return words.reshape(count, 2)

    def indices(self, label: str, count: int, bound: int) -> list[int]:
        """`count` distinct indices below `bound`, ascending; every such set is equally likely."""
        if not 0 <= count <= bound:
            raise ValueError(f"expected at most {bound} distinct indices, found a wish for {count}")
        stream = self._stream(label, count)
        limit, found = (1 << 64) - (1 << 64) % bound, set[int]()
        while len(found) < count:
            found.update(word % bound for word in stream.words(count - len(found)).tolist() if word < limit)
        return sorted(found)

    def _stream(self, label: str, count: int) -> _Stream:
        step = self._step(b"c", label, struct.pack("<Q", count))
        self._state = step.digest()
        return _Stream(step)

    def _step(self, kind: bytes, label: str, item: bytes | bytearray | memoryview) -> Blake3:
        name = label.encode()
        step = blake3(derive_key_context=_PURPOSE)
        step.update(self._state + kind + struct.pack("<QQ", len(name), len(item)) + name)
        step.update(item)
        return step


class _Stream:
    """Words of one challenge: the hash's output behind the part that became the next state."""

    def __init__(self, step: Blake3) -> None:
        self._step, self._at = step, 64

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        drawn = np.frombuffer(self._step.digest(length=8 * count, seek=self._at), "<u8").astype(np.uint64)
        self._at += 8 * count
        return drawn
