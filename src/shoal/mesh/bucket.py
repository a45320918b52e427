"""A token bucket: `rate` per second on average, at most `burst` at once."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Bucket:
    """Starts full at `since`."""

    rate: float
    burst: float
    since: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, amount: float, now: float) -> bool:
        """Whether `amount` was there at `now`; it is gone then. Time that goes back adds nothing."""
        self.tokens = min(self.burst, self.tokens + self.rate * max(0.0, now - self.since))
        self.since = max(self.since, now)
        if self.tokens < amount:
            return False
        self.tokens -= amount
        return True
