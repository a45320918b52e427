"""What a check says: passed, failed or unsure, by what evidence, at what cost. Plain data, no judgement of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tier = Literal["fingerprint", "distribution", "freivalds", "proof", "attestation"]
"""Ways to check an answer, cheapest first; what each catches and misses is in docs/checks.md."""

TIERS: tuple[Tier, ...] = ("fingerprint", "distribution", "freivalds", "proof", "attestation")

Outcome = Literal["pass", "fail", "unsure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, in words; where it was measured, what came out and where the line was."""

    name: str
    text: str
    measured: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What the check took here: seconds, processor seconds of this process, tokens computed again, bytes sent."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    tokens: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is one sentence for people; `findings` what it rests on.

    pass    nothing seen that an honest answer would not show; not a proof, unless the tier is.
    fail    seen what honest answers show less often than the stated false-alarm rate.
    unsure  could not be told: not calibrated, too short, too few verifiers. The next tier may tell.
    """

    tier: Tier
    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...] = ()
    cost: Cost = Cost()
