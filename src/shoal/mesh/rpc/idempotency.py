"""Answers kept under the caller's key, so that asking twice runs the handler once. No I/O; time is an argument.

Rules that stay true in this file:
- a key belongs to one peer and one method: nobody reads another's answers, nor pushes them out;
- at most PEERS peers, and for each ENTRIES answers of BYTES in all, are kept, KEPT_S at most; the oldest go first;
- all together are at most ALL_BYTES: whoever asked longest ago is forgotten first.

What this does not promise: an answer pushed out by many newer ones is computed again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from shoal.core.errors import ShoalError
from shoal.mesh.peer_id import PeerId

KEPT_S = 600.0
PEERS = 256
ENTRIES = 1024
BYTES = 4 * 2**20
ALL_BYTES = 64 * 2**20

Answer = bytes | ShoalError
"""A reply, or an error that a second try could not change."""


@dataclass(slots=True)
class _Kept:
    answers: OrderedDict[tuple[str, bytes], tuple[float, Answer]] = field(default_factory=OrderedDict)
    size: int = 0


class Answers:
    """Finished answers of all peers."""

    def __init__(self) -> None:
        self._peers: OrderedDict[PeerId, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(kept.answers) for kept in self._peers.values())

    def get(self, peer: PeerId, method: str, key: bytes, now: float) -> Answer | None:
        kept = self._peers.get(peer)
        found = kept.answers.get((method, key)) if kept else None
        return found[1] if found is not None and now - found[0] < KEPT_S else None

    def put(self, peer: PeerId, method: str, key: bytes, answer: Answer, now: float) -> None:
        """An answer above BYTES is not kept."""
        kept = self._peers.setdefault(peer, _Kept())
        self._peers.move_to_end(peer)
        self._drop(kept, (method, key))
        kept.answers[method, key] = (now, answer)
        kept.size += _size(answer)
        while kept.answers and (len(kept.answers) > ENTRIES or kept.size > BYTES or self._is_old(kept, now)):
            self._drop(kept, next(iter(kept.answers)))
        while len(self._peers) > PEERS or sum(other.size for other in self._peers.values()) > ALL_BYTES:
            self._peers.popitem(last=False)

    def _is_old(self, kept: _Kept, now: float) -> bool:
        return now - next(iter(kept.answers.values()))[0] >= KEPT_S

    def _drop(self, kept: _Kept, name: tuple[str, bytes]) -> None:
        if (old := kept.answers.pop(name, None)) is not None:
            kept.size -= _size(old[1])


def _size(answer: Answer) -> int:
    return len(answer) if isinstance(answer, bytes) else len(str(answer))
