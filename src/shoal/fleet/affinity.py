"""Who has seen the beginning of this prompt: a chain of hashes over its pieces, remembered per provider.

Pieces are messages, or stretches of 256 characters or 64 token ids; hash i covers pieces 0..i, so the longest known
one says how much of the prompt a provider answered before, and its prefix cache probably still holds.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from shoal.core.request import Message, Request

TEXT_PIECE = 256
TOKEN_PIECE = 64
MAX_PIECES = 256
"""Hashed per prompt; what lies behind them counts as unseen."""


class Affinity:
    """`capacity` hashes in all, the least recently used go first."""

    def __init__(self, capacity: int = 65_536) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def note(self, provider: str, request: Request) -> None:
        """`provider` answered this request."""
        for key, _ in _chain(request):
            self._seen[provider, key] = None
            self._seen.move_to_end((provider, key))
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)

    def share(self, provider: str, request: Request) -> float:
        """Share of the prompt, 0 to 1 by length, that `provider` has seen as a prefix."""
        known = total = 0
        is_open = True
        for key, size in _chain(request):
            total += size
            is_open = is_open and (provider, key) in self._seen
            known += size if is_open else 0
        return known / total if total else 0.0

    def forget(self, provider: str) -> None:
        """It restarted or left: its cache is gone."""
        for key in [key for key in self._seen if key[0] == provider]:
            del self._seen[key]


def _chain(request: Request) -> Iterator[tuple[bytes, int]]:
    """(hash of all pieces up to this one, this one's length)."""
    state = hashlib.blake2b(repr((request.model, request.adapter, request.tools)).encode(), digest_size=16)
    for piece in _pieces(request)[:MAX_PIECES]:
        state.update(piece.encode() + b"\0")
        yield state.digest(), len(piece)


def _pieces(request: Request) -> list[str]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt[start : start + TEXT_PIECE] for start in range(0, len(prompt), TEXT_PIECE)]
    if prompt and isinstance(prompt[0], Message):
        return [repr(message) for message in prompt]
    return [repr(prompt[start : start + TOKEN_PIECE]) for start in range(0, len(prompt), TOKEN_PIECE)]
