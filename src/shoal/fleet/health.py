"""Who failed lately: a provider that fails is left alone for a while, longer each time, and then tried again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Failure:
    """`count` in a row; until `until` (monotonic seconds) nothing is asked. `reason` in words.

    is_kept  of one that no answer makes good before its time is over.
    """

    count: int
    until: float
    reason: str
    is_kept: bool = False


class Health:
    def __init__(self) -> None:
        self.failures: dict[str, Failure] = {}

    def failed(self, name: str, reason: str, now: float) -> None:
        count = self.failures[name].count + 1 if name in self.failures else 1
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (count - 1))
        self.failures[name] = Failure(count, now + pause, reason)

    def busy(self, name: str, reason: str, until: float) -> None:
        """No failure: only leave it alone until then."""
        failure = self.failures.get(name, Failure(0, until, reason))
        self.failures[name] = Failure(failure.count, max(failure.until, until), reason)

    def distrusted(self, name: str, reason: str, now: float) -> None:
        """It answered, and what it said about its answer does not hold: left alone as long as anybody is."""
        count = self.failures[name].count + 1 if name in self.failures else 1
        self.failures[name] = Failure(count, now + LONGEST_PAUSE_S, reason, is_kept=True)

    def succeeded(self, name: str) -> None:
        if name in self.failures and not self.failures[name].is_kept:
            del self.failures[name]

    def is_out(self, name: str, now: float) -> bool:
        return name in self.failures and now < self.failures[name].until
