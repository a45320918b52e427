"""What is wished of audits: by the owner (`--audit`), and by a request (`audit`) where the owner audits at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import get_args

from shoal.core.chunk import Chunk
from shoal.core.errors import BadConfig, InvalidRequest
from shoal.core.request import Request
from shoal.core.service import Service
from shoal.node.config import NO_MODEL, NodeConfig
from shoal.trust.policy import Policy, parse_policy
from shoal.trust.select import Means, Stakes, Trust, Wish, select
from shoal.trust.verdict import Tier

AUDITABLE: tuple[Tier, ...] = ("fingerprint", "distribution")
NEVER = 2.0**-64
"""A rate that draws nothing."""

Wished = Callable[[Request], Policy | None]
"""What a request's `audit` asks for; None where it says nothing. InvalidRequest for what this node cannot do."""

TRUST: dict[str, Trust] = {"private": "stranger", "listed": "known", "swarm": "member", "public": "stranger"}
MEANS: dict[Tier, Means] = {"fingerprint": Means(0.2, 1.0), "distribution": Means(1.0, 30.0)}
"""Relative work as measured (docs/checks.md, five verifiers) and seconds, roughly. Of what a node can do by itself:
proofs and quotes only the answerer can make, and `shoal check` judges them where they are given (`node.evidence`)."""
USUAL_TOKENS = 1024


def no_audits(request: Request) -> Policy | None:
    """Of a node that checks nothing."""
    if request.audit:
        raise InvalidRequest("audit: this node checks no answers; start it with --audit", "audit")
    return None


def policy_of(trust: Trust, means: Mapping[Tier, Means], request: Request) -> Policy | None:
    """A tier by name, or by what a wrong answer would cost: then the selector chooses."""
    stakes = next((stakes for stakes in get_args(Stakes) if stakes == request.audit), None)
    if not request.audit:
        return None
    if stakes is None:
        policy = parse_policy(request.audit)
        if policy.tier not in means:
            told = f"audit: this node cannot check by {policy.tier}; it can by: {', '.join(means)}"
            raise InvalidRequest(told + _by_hand(policy.tier), "audit")
        return policy
    choice = select(Wish(stakes, trust, request.sampling.max_tokens or USUAL_TOKENS), means)
    return Policy("fingerprint", NEVER) if choice.tier is None else Policy(choice.tier, choice.rate)


def _by_hand(tier: Tier) -> str:
    """For tiers that need what only the answerer can make."""
    return f"; given what it needs, `shoal check --tier {tier}` does" if tier in ("proof", "attestation") else ""


def wishing(service: Service, wished: Wished) -> Service:
    """`service`, which refuses a wish that cannot be met before anything is computed."""

    def answer(request: Request) -> AsyncIterator[Chunk]:
        wished(request)
        return service.generate(request)

    return replace(service, generate=answer)


def read_policies(config: NodeConfig, has_peers: bool) -> tuple[Policy, ...]:
    """What `audit` says. BadConfig for what this node could never do."""
    try:
        policies = tuple(parse_policy(text) for text in config.audit)
    except InvalidRequest as error:
        raise BadConfig("audit", str(error)) from None
    if unable := [policy.tier for policy in policies if policy.tier not in AUDITABLE]:
        able = " and ".join(AUDITABLE)
        raise BadConfig(
            "audit", f"peers' answers are checked by {able} as they come, not by {unable[0]}{_by_hand(unable[0])}"
        )
    if len({policy.tier for policy in policies}) < len(policies):
        raise BadConfig("audit", "expected each tier once")
    if policies and not has_peers:
        raise BadConfig("audit", "there are no peers whose answers could be checked: join a mesh, or share")
    if policies and config.model == NO_MODEL:
        raise BadConfig("audit", "answers are checked by running them again, and this node has no model: give --model")
    return policies
