"""How long a suspicion lasts, how slow this peer itself is, and who flaps: three small formulas, all pure.

Suspicion and awareness are Lifeguard's (Dadgar, Phillips and Currey 2018); damping is that of routes (RFC 2439).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIRMATIONS = 3
"""Accusers after which a suspicion is as short as it gets."""

MAX_AWARENESS = 8


def suspicion_s(num_members: int, num_accusers: int, period_s: float) -> float:
    """Seconds from the first accusation until a peer counts as dead.

    At least log10(n) periods (two at n <= 100): a refutation needs that long to come round. One lone accuser, who may
    itself be cut off, waits three times as long.
    """
    shortest = max(2.0, math.log10(max(num_members, 1))) * period_s
    longest = 3 * shortest
    share = math.log(min(num_accusers, CONFIRMATIONS)) / math.log(CONFIRMATIONS) if num_accusers > 1 else 0.0
    return longest - (longest - shortest) * share


@dataclass(slots=True)
class Awareness:
    """How likely it is that the fault is here: 0 is well, 8 is very slow. All waits are multiplied by `factor`."""

    score: int = 0

    @property
    def factor(self) -> int:
        return 1 + self.score

    def well(self) -> None:
        self.score = max(0, self.score - 1)

    def unwell(self) -> None:
        self.score = min(MAX_AWARENESS, self.score + 1)


@dataclass(slots=True)
class _Penalty:
    points: float
    at: float
    is_damped: bool = False


class Damping:
    """Who came and went too often: each time costs a point, points halve in `half_life_s`.

    From `damp_at` points on a peer is damped, until it is below `free_at`. At most `capacity` peers are kept,
    those with most points.
    """

    def __init__(
        self, half_life_s: float = 120.0, damp_at: float = 2.5, free_at: float = 1.0, capacity: int = 4096
    ) -> None:
        self._half_life_s = half_life_s
        self._damp_at = damp_at
        self._free_at = free_at
        self._capacity = capacity
        self._penalties: dict[object, _Penalty] = {}

    def penalise(self, peer: object, now: float) -> None:
        penalty = self._penalties.setdefault(peer, _Penalty(0.0, now))
        penalty.points = self._points(penalty, now) + 1.0
        penalty.at = now
        penalty.is_damped = penalty.is_damped or penalty.points >= self._damp_at
        if len(self._penalties) > self._capacity:
            least = min(self._penalties, key=lambda other: self._points(self._penalties[other], now))
            del self._penalties[least]

    def is_damped(self, peer: object, now: float) -> bool:
        penalty = self._penalties.get(peer)
        if penalty is None:
            return False
        points = self._points(penalty, now)
        penalty.is_damped = penalty.is_damped and points >= self._free_at
        if points < 0.1:
            del self._penalties[peer]
        return penalty.is_damped

    def _points(self, penalty: _Penalty, now: float) -> float:
        return penalty.points * math.exp2((penalty.at - now) / self._half_life_s)
