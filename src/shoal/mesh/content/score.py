"""How well a peer has done, as lattica scores its peers (`bitswap`, v1.0.21): speed, success and stability, and time.

score = (0.5 speed + 0.35 success + 0.15 stability) * decay, each from 0 to 100; a new peer has 55.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NEW = 55.0
DECAY_S = 600.0


@dataclass(slots=True)
class Score:
    """`rate`: bytes a second, smoothed. A wrong piece ends a peer's part in a blob, whatever its score."""

    rate: float = 0.0
    wins: int = 0
    losses: int = 0
    streak: int = 0
    last: float = 0.0

    def won(self, size_bytes: int, took_s: float, now: float) -> None:
        rate = size_bytes / max(took_s, 1e-4)
        self.rate = rate if not self.wins else 0.7 * self.rate + 0.3 * rate
        self.wins, self.streak, self.last = self.wins + 1, self.streak + 1, now

    def lost(self, now: float) -> None:
        self.losses, self.streak, self.last = self.losses + 1, 0, now

    def value(self, now: float) -> float:
        if not self.wins + self.losses:
            return NEW
        speed = min(100.0, max(0.0, (math.log10(max(self.rate, 1.0)) - 3) / 5 * 100))
        success = 100 * self.wins / (self.wins + self.losses)
        decay = 1 - 0.3 * min(1.0, (now - self.last) / DECAY_S)
        return (0.5 * speed + 0.35 * success + 0.15 * min(self.streak, 10) * 10) * decay
