"""Providers that refused one request only because they were busy, and how long to wait for a seat at one of them.

A local engine has a queue of its own; peers refuse at once, so the queue for them is here, with whoever asks.
"""

from __future__ import annotations

from shoal.core.errors import Overloaded, ShoalError
from shoal.fleet.provider import Provider

SOON_S = 2.0
"""An answer that has not begun waits for seats that are free so soon; else the client is told when to come back."""
LEAST_S = 0.1
"""Between two questions of one provider, whatever it promises."""
QUEUE_S = 30.0
"""The longest wait in all for an answer that has not begun."""
PATIENCE_S = 120.0
"""For one that has begun: half an answer is worth a longer wait."""


class Busy:
    """Of one request that began at `now`; times are monotonic seconds."""

    def __init__(self, now: float, deadline: float | None) -> None:
        self._began, self._deadline = now, deadline
        self._free_at: dict[str, float] = {}

    def note(self, provider: Provider, error: ShoalError, now: float) -> None:
        """`provider` refused with `error`. A local engine that is full means it: it has a queue."""
        if isinstance(error, Overloaded) and provider.kind != "local":
            self._free_at[provider.name] = now + max(LEAST_S, error.retry_after_s)

    def pause_s(self, is_begun: bool, now: float) -> float | None:
        """How long to wait for the first seat; None where that is not worth it."""
        if not self._free_at:
            return None
        pause = max(0.0, min(self._free_at.values()) - now)
        until = self._began + (PATIENCE_S if is_begun else QUEUE_S)
        if self._deadline is not None:
            until = min(until, self._deadline)
        is_soon = is_begun or pause <= SOON_S
        return pause if is_soon and now + pause < until else None

    def free(self, now: float) -> set[str]:
        """Those to ask again now."""
        found = {name for name, at in self._free_at.items() if at <= now}
        for name in found:
            del self._free_at[name]
        return found
