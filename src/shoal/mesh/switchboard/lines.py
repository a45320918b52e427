"""The links there are, by peer, with what went over each lately."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.mesh.carrier import Link, LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.switchboard.choice import Candidate, best

KEEP_ALIVE_BYTES = 1024
"""A second's traffic below this is pings, not use."""


@dataclass(eq=False, slots=True)
class Line:
    """A link. `active_at`: when more than pings went over it, monotonic; `rate`: bytes a second then.

    info  as it was at most a second ago: asking a QUIC link takes 0.1 ms, and a node asks of all of them often.
    """

    link: Link
    active_at: float
    info: LinkInfo
    bytes_seen: int = 0
    sampled_at: float = 0.0
    rate: float | None = None

    def sample(self, now: float) -> None:
        """Look at the counters; called about once a second."""
        info = self.info = self.link.info()
        total = info.bytes_sent + info.bytes_received
        if total - self.bytes_seen > KEEP_ALIVE_BYTES and now > self.sampled_at:
            self.rate = (total - self.bytes_seen) / (now - self.sampled_at)
            self.active_at = now
        self.bytes_seen, self.sampled_at = total, now


class Lines:
    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._by_peer: dict[PeerId, list[Line]] = {}
        self.count = 0

    def add(self, link: Link, now: float) -> Line:
        line = Line(link, now, link.info(), sampled_at=now)
        self._by_peer.setdefault(link.peer, []).append(line)
        self.count += 1
        return line

    def remove(self, line: Line) -> None:
        rest = [other for other in self._by_peer.get(line.link.peer, []) if other is not line]
        self.count -= 1
        if rest:
            self._by_peer[line.link.peer] = rest
        else:
            self._by_peer.pop(line.link.peer, None)

    def of(self, peer: PeerId) -> list[Line]:
        return self._by_peer.get(peer, [])

    def used(self, peer: PeerId) -> Line | None:
        """The link to use for a peer; None where there is none."""
        lines = self._by_peer.get(peer)
        if not lines:
            return None
        if len(lines) == 1:
            return lines[0]
        chosen = best([Candidate(line.link, line.info) for line in lines], self._me)
        return next(line for line in lines if line.link is chosen.link)

    def all(self) -> list[Line]:
        return [line for lines in self._by_peer.values() for line in lines]

    def peers(self) -> list[PeerId]:
        return list(self._by_peer)
