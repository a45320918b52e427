"""The distribution tier's arithmetic: what verifiers say of an answer, how far they differ, and how they vote. Pure.

Each of k verifiers runs the answer again and returns, at positions drawn at random, the m likeliest tokens with their
log-probabilities and the sampler's gap of the token that was returned (`check_rerun.gap`). Distributions are compared,
not bytes, so that honest arithmetics may differ. The median decides: with f < k / 2 liars it lies between two honest
values, whatever the liars say.

What this does not protect against: k / 2 or more colluding verifiers (`distribution_odds` says how likely a draw of
them is), and a prompt that must stay secret: every verifier sees it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from shoal.core.errors import PeerFault
from shoal.trust.verdict import Finding, Verdict

MAX_POSITIONS = 64
MAX_RANKS = 64
MAX_TOKEN = 2**31
GAP_LIMIT = 0.02
"""Mean gap that honest arithmetics stay below at 32 and more positions (docs/checks.md)."""
DISTANCE_LIMIT = 0.1
"""Mean truncated total variation that two honest arithmetics stay below."""
DOUBT = 0.5
"""Between this share of a limit and the limit nothing is decided."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One position: the likeliest tokens, most likely first, with natural logarithms of their probabilities; `gap`."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    gap: float = 0.0


@dataclass(frozen=True, slots=True)
class Claims:
    """What one verifier says, position by position."""

    ranks: tuple[Ranks, ...]


def check_claims(claims: Claims, num_positions: int, num_ranks: int) -> None:
    """PeerFault for claims that no run of any model makes."""
    if len(claims.ranks) != num_positions:
        raise PeerFault(f"expected {num_positions} positions, found {len(claims.ranks)}")
    for ranks in claims.ranks:
        if not 0 < len(ranks.tokens) == len(ranks.logprobs) <= num_ranks or not 0.0 <= ranks.gap <= 1.0:
            raise PeerFault(f"expected 1 to {num_ranks} ranks and a gap in [0, 1]")
        if len(set(ranks.tokens)) < len(ranks.tokens) or not all(0 <= token < MAX_TOKEN for token in ranks.tokens):
            raise PeerFault("expected different tokens")
        falls = all(a >= b for a, b in zip(ranks.logprobs, ranks.logprobs[1:], strict=False))
        if not falls or not all(map(math.isfinite, ranks.logprobs)) or _mass(ranks) > 1.001:
            raise PeerFault("expected falling log-probabilities that are a distribution's")


def distance(a: Ranks, b: Ranks) -> float:
    """Truncated total variation: the least that any two distributions with these beginnings differ by, in [0, 1].

    TV = max over sets S of P(S) - Q(S). A token that is not listed has at most the smallest listed probability, and at
    most what the list leaves; so listing other tokens cannot hide a difference.
    """
    return max(_surplus(a, b), _surplus(b, a))


def _surplus(a: Ranks, b: Ranks) -> float:
    """Sum over a's tokens of what a gives them beyond the most that b can."""
    listed = dict(zip(b.tokens, map(math.exp, b.logprobs), strict=True))
    unlisted = min(math.exp(b.logprobs[-1]), max(0.0, 1.0 - _mass(b)))
    pairs = zip(a.tokens, map(math.exp, a.logprobs), strict=True)
    return sum(max(0.0, p - listed.get(token, unlisted)) for token, p in pairs)


def _mass(ranks: Ranks) -> float:
    return sum(map(math.exp, ranks.logprobs))


def mean_distance(a: Claims, b: Claims) -> float:
    """ValueError for claims of unequal length."""
    return statistics.fmean(distance(x, y) for x, y in zip(a.ranks, b.ranks, strict=True))


def mean_gap(claims: Claims) -> float:
    return statistics.fmean(ranks.gap for ranks in claims.ranks)


@dataclass(frozen=True, slots=True)
class Lines:
    """What is too far: of the returned tokens from the sampler's, and of two distributions."""

    gap: float = GAP_LIMIT
    distance: float = DISTANCE_LIMIT


def vote(asked: int, claims: Sequence[Claims], answerer: Claims | None, lines: Lines | None = None) -> Verdict:
    """The verdict of `asked` verifiers, of which those who committed and revealed in time are `claims`.

    answerer  its own claims, from the same round; None: it gave none, and only its tokens are judged.
    """
    lines = lines or Lines()
    if 2 * len(claims) <= asked:
        reason = f"{len(claims)} of {asked} verifiers answered: no majority of them can be honest for sure"
        return Verdict("distribution", "unsure", reason)
    gap = statistics.median(map(mean_gap, claims))
    findings = [Finding("gap", "median over verifiers: distance of the tokens from the sampler's", gap, lines.gap)]
    shares = [gap / lines.gap]
    if answerer is not None:
        far = statistics.median(mean_distance(one, answerer) for one in claims)
        text = "median over verifiers: total variation from what the answerer says of its model"
        findings.append(Finding("distance", text, far, lines.distance))
        shares.append(far / lines.distance)
    findings.append(_agreement(claims, lines))
    worst = max(shares)
    outcome = "fail" if worst > 1 else "unsure" if worst > DOUBT else "pass"
    return Verdict("distribution", outcome, _reason(outcome, len(claims), asked), tuple(findings))  # type: ignore[arg-type]


def _agreement(claims: Sequence[Claims], lines: Lines) -> Finding:
    """How many verifiers stand apart from the middle of the others: liars, or another arithmetic."""
    apart = [
        statistics.median(mean_distance(one, other) for place, other in enumerate(claims) if place != own)
        for own, one in enumerate(claims)
        if len(claims) > 1
    ]
    count = sum(value > lines.distance for value in apart)
    return Finding("apart", f"{count} of {len(claims)} verifiers stand apart from the others", float(count))


def _reason(outcome: str, answered: int, asked: int) -> str:
    texts = {
        "pass": "the middle of the verifiers finds the tokens where this model's sampler puts them",
        "unsure": "the middle of the verifiers is too near the line to tell",
        "fail": "the middle of the verifiers finds tokens or distributions that are not this model's",
    }
    return f"{texts[outcome]} ({answered} of {asked} answered)"
