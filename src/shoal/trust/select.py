"""Which tier checks an answer: from what is at stake, whom one deals with and what a check may cost. Pure tables.

    NEEDS      (stakes, trust) -> how strong the evidence must be, and whether a sample of answers will do
    ENOUGH     strength -> tiers that give it, in the order in which they are preferred
    REFUSALS   why a tier cannot be used for this wish, in words; each rule is tested

A wish that no tier can meet is refused with the reason of every tier, not met a little.

What this does not protect against: a wish that is wrong. Who calls a stranger known gets no check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from shoal.core.errors import InvalidRequest
from shoal.trust.verdict import TIERS, Tier

Stakes = Literal["low", "medium", "high"]
"""What a wrong answer would cost."""
Trust = Literal["known", "member", "stranger"]
"""Who answered: a peer one knows, a member of one's swarm, anybody."""
Strength = Literal["nothing", "sampled", "likely", "agreed", "exact"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be checked, and what it may take.

    size_tokens  of prompt and answer together.
    budget       work of the check over work of the answer, at most, on average over answers.
    latency_s    the verdict must be there within; None: whenever it comes.
    is_secret    nobody but the answerer may see the prompt.
    is_lasting   the evidence must convince third parties later, not only this node now.
    """

    stakes: Stakes
    trust: Trust
    size_tokens: int
    budget: float = 1.0
    latency_s: float | None = None
    is_secret: bool = False
    is_lasting: bool = False


@dataclass(frozen=True, slots=True)
class Means:
    """One tier as this node could use it now, for an answer of the wish's size: relative work, and seconds it takes.

    most_tokens  it can check.
    """

    cost: float
    duration_s: float
    most_tokens: int = 2**31


@dataclass(frozen=True, slots=True)
class Choice:
    """`tier` None: no check. `rate`: the share of such answers to check. `why` in words."""

    tier: Tier | None
    rate: float
    why: str


NEEDS: dict[tuple[Stakes, Trust], Strength] = {
    ("low", "known"): "nothing",
    ("low", "member"): "sampled",
    ("low", "stranger"): "sampled",
    ("medium", "known"): "sampled",
    ("medium", "member"): "likely",
    ("medium", "stranger"): "agreed",
    ("high", "known"): "likely",
    ("high", "member"): "agreed",
    ("high", "stranger"): "exact",
}

ENOUGH: dict[Strength, tuple[Tier, ...]] = {
    "nothing": (),
    "sampled": ("fingerprint", "freivalds", "distribution", "attestation", "proof"),
    "likely": ("fingerprint", "freivalds", "distribution", "attestation", "proof"),
    "agreed": ("freivalds", "distribution", "attestation", "proof"),
    "exact": ("freivalds", "proof"),
}

MEANING: dict[Strength, str] = {
    "nothing": "no check is needed",
    "sampled": "a sample of answers deters whoever has more to lose than to gain",
    "likely": "each answer is compared with a run of the model here",
    "agreed": "more than one machine's arithmetic, or a hardware maker's word, must stand behind it",
    "exact": "the numbers themselves must be shown to follow from model and prompt",
}

Refusal = Callable[[Tier, Wish, Means], str | None]

SAMPLE_RATE = 0.05
LEAST_RATE = 0.001


def _exposes(tier: Tier, wish: Wish, means: Means) -> str | None:
    return "it shows the prompt to other peers" if wish.is_secret and tier == "distribution" else None


def _fades(tier: Tier, wish: Wish, means: Means) -> str | None:
    if wish.is_lasting and tier in ("fingerprint", "freivalds"):
        return "it convinces this node alone: nobody else can tell that it was done"
    return None


def _is_late(tier: Tier, wish: Wish, means: Means) -> str | None:
    if wish.latency_s is None or means.duration_s <= wish.latency_s:
        return None
    return f"it takes {means.duration_s:.3g} s, {wish.latency_s:.3g} s are allowed"


def _is_large(tier: Tier, wish: Wish, means: Means) -> str | None:
    if wish.size_tokens <= means.most_tokens:
        return None
    return f"it checks at most {means.most_tokens} tokens, these are {wish.size_tokens}"


def _is_dear(tier: Tier, wish: Wish, means: Means) -> str | None:
    rate = _rate(wish, means)
    is_sampled = NEEDS[wish.stakes, wish.trust] == "sampled"
    if rate >= (LEAST_RATE if is_sampled else 1.0):
        return None
    return f"it costs {means.cost:.3g} times the answer, {wish.budget:.3g} times are allowed"


REFUSALS: tuple[Refusal, ...] = (_exposes, _fades, _is_late, _is_large, _is_dear)


def select(wish: Wish, means: Mapping[Tier, Means]) -> Choice:
    """The first tier that is strong enough and possible. InvalidRequest with every tier's reason where there is none.

    means  what this node has; a tier it lacks is refused by name.
    """
    if wish.budget < 0 or wish.size_tokens < 1 or (wish.latency_s is not None and wish.latency_s < 0):
        raise InvalidRequest(f"expected tokens, and a budget and a latency that are not negative, found {wish}")
    need = NEEDS[wish.stakes, wish.trust]
    about = f"{wish.stakes} stakes, a {wish.trust} peer: {MEANING[need]}"
    if need == "nothing":
        return Choice(None, 0.0, about)
    reasons: list[str] = []
    for tier in ENOUGH[need]:
        if (reason := _refusal(tier, wish, means)) is None:
            rate = _rate(wish, means[tier])
            share = "every answer" if rate == 1 else f"{rate:.2g} of the answers"
            return Choice(tier, rate, "; ".join((f"{about}; {tier} for {share}", *reasons)))
        reasons.append(f"not {tier}: {reason}")
    weaker = [f"not {tier}: too weak for this" for tier in TIERS if tier not in ENOUGH[need]]
    raise InvalidRequest("; ".join((f"no check meets the wish ({about})", *weaker, *reasons)), "audit")


def _refusal(tier: Tier, wish: Wish, means: Mapping[Tier, Means]) -> str | None:
    if tier not in means:
        return "this node cannot do it"
    return next((reason for rule in REFUSALS if (reason := rule(tier, wish, means[tier])) is not None), None)


def _rate(wish: Wish, means: Means) -> float:
    """As often as the need asks and the budget pays."""
    wanted = SAMPLE_RATE if NEEDS[wish.stakes, wish.trust] == "sampled" else 1.0
    return min(wanted, wish.budget / means.cost) if means.cost > 0 else wanted
