"""What is on its way, in both directions: how much, how fast, from or to whom, and how each ended.

A fetch ends exactly once: done, cancelled or failed. What a peer takes here ends when it has it all, or when it has
asked for nothing more for a while (it may have had the rest from others): nobody says goodbye after the last piece.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from shoal.core.clock import Clock
from shoal.core.service import TransferView
from shoal.mesh.peer_id import PeerId

Direction = Literal["down", "up"]

RATE_OVER_S = 3.0
"""The time constant of a transfer's rate."""
IDLE_S = 10.0
"""A peer that has asked for nothing for so long takes no more."""
RECENT_S = 5.0
"""Who has sent within it counts as sending."""
SHOWN_S = 60.0
KEPT = 16
"""Transfers that ended are shown for so long, so many of them."""
MAX_GIVEN = 256
"""Peers' downloads from here that are followed at once; beyond them the quietest is forgotten."""


@dataclass(slots=True)
class Transfer:
    """`size_bytes` is 0 until it is known. `heard`: when each peer sent or took something last."""

    name: str
    direction: Direction
    began: float
    size_bytes: int = 0
    done_bytes: int = 0
    heard: dict[PeerId, float] = field(default_factory=dict)
    outcome: str = ""
    at: float = 0.0
    _level: float = 0.0

    def moved(self, peer: PeerId, num_bytes: int, now: float) -> None:
        self._level = self._level * self._decay(now) + num_bytes
        self.heard[peer] = self.at = now

    def rate_bps(self, now: float) -> float:
        """Bytes a second lately: an exponential mean, right from the first second on."""
        seen = 1 - math.exp(-max(now - self.began, 0.05) / RATE_OVER_S)
        return self._level * self._decay(now) / (RATE_OVER_S * seen)

    def _decay(self, now: float) -> float:
        return math.exp(-max(now - max(self.at, self.began), 0.0) / RATE_OVER_S)

    def view(self, now: float) -> TransferView:
        is_over = bool(self.outcome)
        near = [peer for peer, at in self.heard.items() if is_over or self.direction == "up" or now - at < RECENT_S]
        done = min(self.done_bytes, self.size_bytes) if self.size_bytes else self.done_bytes
        names = tuple(str(peer) for peer in near[:KEPT])
        rate = 0.0 if is_over else self.rate_bps(now)
        return TransferView(self.name, done, self.size_bytes, len(near), self.direction, rate, names, self.outcome)


@dataclass(slots=True)
class Transfers:
    """Every transfer of this node. `ended` counts by direction and outcome, `moved_bytes` by direction."""

    clock: Clock
    ended: Counter[tuple[Direction, str]] = field(default_factory=Counter)
    moved_bytes: Counter[Direction] = field(default_factory=Counter)
    _running: list[Transfer] = field(default_factory=list)
    _given: dict[tuple[PeerId, bytes], Transfer] = field(default_factory=dict)
    _over: deque[tuple[float, Transfer]] = field(default_factory=lambda: deque(maxlen=KEPT))

    @contextmanager
    def fetching(self, name: str) -> Iterator[Transfer]:
        """A fetch for as long as the block lasts; how it leaves the block is how it ended."""
        transfer = Transfer(name, "down", self.clock.monotonic())
        self._running.append(transfer)
        outcome = "cancelled"
        try:
            yield transfer
            outcome = "done"
        except Exception as error:
            outcome = f"failed: {error}"
            raise
        finally:
            self._running.remove(transfer)
            self._end(transfer, outcome)

    def came(self, transfer: Transfer, peer: PeerId, num_bytes: int) -> None:
        self.moved_bytes["down"] += num_bytes
        transfer.moved(peer, num_bytes, self.clock.monotonic())

    def gave(self, peer: PeerId, blob: bytes, name: str, size_bytes: int, num_bytes: int) -> None:
        """A piece of `num_bytes` went to `peer`."""
        now = self.clock.monotonic()
        self.moved_bytes["up"] += num_bytes
        transfer = self._given.get((peer, blob))
        if transfer is None:
            self._make_room(now)
            transfer = self._given[peer, blob] = Transfer(name, "up", now, size_bytes)
        transfer.done_bytes += num_bytes
        transfer.moved(peer, num_bytes, now)
        if transfer.done_bytes >= size_bytes:
            self._end(self._given.pop((peer, blob)), "done")

    def views(self) -> tuple[TransferView, ...]:
        """What is on its way to here first, then what is taken, then what ended lately."""
        now = self.clock.monotonic()
        self._settle(now)
        over = [transfer for at, transfer in reversed(self._over) if now - at < SHOWN_S]
        return tuple(transfer.view(now) for transfer in (*self._running, *self._given.values(), *over))

    def _settle(self, now: float) -> None:
        for key in [key for key, transfer in self._given.items() if now - transfer.at > IDLE_S]:
            self._end(self._given.pop(key), "stopped")

    def _make_room(self, now: float) -> None:
        if len(self._given) >= MAX_GIVEN:
            self._settle(now)
        if len(self._given) >= MAX_GIVEN:
            self._end(self._given.pop(min(self._given, key=lambda key: self._given[key].at)), "stopped")

    def _end(self, transfer: Transfer, outcome: str) -> None:
        transfer.outcome = outcome
        self.ended[transfer.direction, outcome.partition(":")[0]] += 1
        self._over.append((self.clock.monotonic(), transfer))
