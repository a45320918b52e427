"""How much of the event loop's time the other side of a link may use. No I/O; seconds are given.

Whoever uses more is not refused: it is read later, so its own calls wait, and nobody else's. All links together get
`Limits.all_time_share`, in equal parts, one at most `Limits.time_share`. What a link did not use it may use at once
later, up to BURST_S of its part. So an attacker with many identities, each on a link, slows itself down first.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from shoal.mesh.rpc.limits import Limits

BURST_S = 1.0
LONGEST_S = 2.0
"""One pause; what is owed beyond it is owed still."""


@dataclass(slots=True)
class Shares:
    """Of all links."""

    limits: Limits
    num_links: int = 0

    @property
    def rate(self) -> float:
        """Seconds a second for one link."""
        return min(self.limits.time_share, self.limits.all_time_share / max(1, self.num_links))


class Share:
    """Of one link; `leave` once it has ended."""

    def __init__(self, shares: Shares, now: float) -> None:
        self._shares, self._at = shares, now
        shares.num_links += 1
        self._left = self.rate * BURST_S

    @property
    def rate(self) -> float:
        return self._shares.rate

    @property
    def is_free(self) -> bool:
        """Whether nothing is counted."""
        return math.isinf(self._shares.limits.time_share)

    def spend(self, seconds: float) -> None:
        self._left -= seconds

    def pause_s(self, now: float) -> float:
        """How long to leave this link unread now."""
        if self.is_free:
            return 0.0
        rate = self.rate
        self._left = min(rate * BURST_S, self._left + max(0.0, now - self._at) * rate)
        self._at = now
        return min(LONGEST_S, -self._left / rate) if self._left < 0 else 0.0

    def leave(self) -> None:
        self._shares.num_links -= 1


class Metered:
    """Awaits `work` and spends of `share` the time in which it ran, not that in which it waited."""

    def __init__(self, work: Coroutine[Any, Any, None], share: Share) -> None:
        self._work, self._share = work, share

    def __await__(self) -> Generator[Any, Any, None]:
        error: BaseException | None = None
        while True:
            began = perf_counter()
            try:
                waits_for = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration:
                return
            finally:
                self._share.spend(perf_counter() - began)
            error = None
            try:
                yield waits_for
            except BaseException as thrown:  # a cancellation is the work's to handle
                error = thrown
