"""How often answers are checked, by which tier, and what a dispute escalates to. Pure.

A peer cannot know which of its answers will be looked at: the choice is a keyed hash of the receipt under a secret of
this process. Of N answers of which a fraction f is fraud, checks at rate q see at least one with 1 - (1 - q f)^N,
if every fraud that is looked at is seen; `detection` has the power of the test in it too.

What this does not protect against: a single fraud is caught with chance q only. Sampling deters whoever has something
to lose; it does not make one answer right.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Collection
from dataclasses import dataclass, field

from shoal.core.errors import InvalidRequest
from shoal.trust.verdict import TIERS, Tier, Verdict

ESCALATION: dict[Tier, tuple[Tier, ...]] = {
    "fingerprint": ("freivalds", "distribution", "proof"),
    "distribution": ("freivalds", "proof"),
    "freivalds": ("proof",),
    "proof": (),
    "attestation": ("fingerprint", "distribution", "freivalds", "proof"),
}
"""Where a verdict that is not `pass` is taken: what settles more, exact and local checks before asking others."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Check a share `rate`, in (0, 1], of the answers by `tier`."""

    tier: Tier
    rate: float

    def __str__(self) -> str:
        return f"{self.tier}:{self.rate:g}"


def parse_policy(text: str) -> Policy:
    """ "fingerprint:0.05", or a tier alone, which checks every answer. InvalidRequest says what was expected."""
    name, _, share = text.partition(":")
    tier = next((tier for tier in TIERS if tier == name), None)
    try:
        rate = float(share) if share else 1.0
    except ValueError:
        rate = math.nan
    if tier is None or not 0 < rate <= 1 or text.endswith(":"):
        raise InvalidRequest(
            f"expected TIER:RATE with TIER of {', '.join(TIERS)}, 0 < RATE <= 1, found {text!r}", "audit"
        )
    return Policy(tier, rate)


@dataclass(frozen=True, slots=True)
class Draw:
    """Which answers are looked at. `secret` is of this process and never leaves it."""

    secret: bytes = field(repr=False)

    def is_drawn(self, policy: Policy, receipt_hash: bytes) -> bool:
        """The same for the same receipt; for whoever lacks the secret, a coin of weight `policy.rate`."""
        mac = hmac.digest(self.secret, policy.tier.encode() + b"\x00" + receipt_hash, "sha256")
        return int.from_bytes(mac[:8], "big") < policy.rate * 2**64


def next_tier(verdict: Verdict, available: Collection[Tier], tried: Collection[Tier] = ()) -> Tier | None:
    """Where a dispute goes; None for a pass, or where nothing here settles more."""
    if verdict.outcome == "pass":
        return None
    return next((tier for tier in ESCALATION[verdict.tier] if tier in available and tier not in tried), None)


def detection(answers: int, rate: float, fraud: float, power: float = 1.0) -> float:
    """Chance to see fraud at least once: 1 - (1 - q f w)^N, where a check of a fraud sees it with chance `power`."""
    _check_shares(rate, fraud, power)
    seen = rate * fraud * power
    return 1.0 if seen == 1.0 and answers else -math.expm1(answers * math.log1p(-seen)) if seen < 1.0 else 0.0


def answers_needed(confidence: float, rate: float, fraud: float, power: float = 1.0) -> int:
    """Answers until fraud was seen with this chance. ValueError where it never is."""
    _check_shares(rate, fraud, power)
    seen = rate * fraud * power
    if seen == 0 or not 0 <= confidence < 1:
        raise ValueError("expected fraud, checks that see it, and a confidence below 1")
    return 1 if seen == 1 else math.ceil(math.log1p(-confidence) / math.log1p(-seen))


def least_stake(rate: float, gain: float, power: float = 1.0) -> float:
    """What a cheat must lose when caught for a single fraud not to pay: gain (1 - q) / q."""
    _check_shares(rate, 1.0, power)
    return gain * (1 - rate * power) / (rate * power) if rate * power else math.inf


def _check_shares(*shares: float) -> None:
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"expected shares in [0, 1], found {shares}")
