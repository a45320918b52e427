"""The verifier's coins: who draws challenges, and the one that hashes what was said before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from blake3 import blake3

from shoal.proof.plain.scalars import GOLDILOCKS, Element


class Coins(Protocol):
    """Hears every message and draws every challenge, in the protocol's order."""

    def hear(self, label: str, elements: Sequence[Element]) -> None: ...

    def draw(self, label: str, count: int = 1) -> list[Element]: ...


class HashCoins:
    """state' = BLAKE3(state | kind | lengths | label | item); challenges are 64-bit words of the same hash's output,
    from byte 64 on, those above the modulus left out."""

    def __init__(self) -> None:
        self.state = bytes(32)

    def hear(self, label: str, elements: Sequence[Element]) -> None:
        self.hear_bytes(label, b"".join(word.to_bytes(8, "little") for element in elements for word in element))

    def hear_bytes(self, label: str, item: bytes) -> None:
        self._absorb("a", label, item)

    def draw(self, label: str, count: int = 1) -> list[Element]:
        found = self._words(label, count, 2 * count, GOLDILOCKS.p)
        return list(zip(found[::2], found[1::2], strict=True))

    def places(self, label: str, count: int, bound: int) -> list[int]:
        """Distinct numbers below `bound`, ascending."""
        hashed, found, at = self._absorb("c", label, count.to_bytes(8, "little")), set[int](), 64
        while len(found) < count:
            missing = count - len(found)
            for word in _read(hashed, at, missing):
                if word < 2**64 // bound * bound:
                    found.add(word % bound)
            at += 8 * missing
        return sorted(found)

    def _words(self, label: str, count: int, wanted: int, bound: int) -> list[int]:
        hashed, found, at = self._absorb("c", label, count.to_bytes(8, "little")), list[int](), 64
        while len(found) < wanted:
            found += [word for word in _read(hashed, at, 1) if word < bound]
            at += 8
        return found

    def _absorb(self, kind: str, label: str, item: bytes) -> blake3:
        name = label.encode()
        sizes = len(name).to_bytes(8, "little") + len(item).to_bytes(8, "little")
        whole = self.state + kind.encode() + sizes + name + item
        hashed = blake3(whole, derive_key_context="shoal transcript v1")
        self.state = hashed.digest()
        return hashed


def _read(hashed: blake3, at: int, count: int) -> list[int]:
    data = hashed.digest(length=8 * count, seek=at)
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
