"""Checks behind one interface: `check(subject, tier, checkers)` gives a verdict, `settle` goes on while there is doubt.

A checker is a function from a subject to a verdict; a node has a map of those it can run. A tier it cannot run is
refused by name, never skipped. Before any of them the receipt itself must hold: signature, commitments, parts.

Reading order: verdict, policy, select; check, check_audit (a share of peers' answers, in idle time); check_rerun,
calibrate, fingerprint_check; distribution*, vrf; freivalds*; forward_store, proof_check; attestation_check.

What this does not protect against: what each tier does not (docs/checks.md). A pass is never stronger than its tier.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from shoal.core.clock import Clock
from shoal.core.errors import InvalidRequest, ShoalError, Unsupported
from shoal.core.receipt import Opening, Receipt, Signed
from shoal.trust.gather import LOCAL
from shoal.trust.inspect import inspect
from shoal.trust.policy import next_tier
from shoal.trust.receipt import receipt_digest
from shoal.trust.verdict import Cost, Tier, Verdict


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked: one signer's part of an answer.

    begun  for each choice the first token that this signer was asked for; absent: what its own receipt says of parts.
    """

    receipt: Receipt
    opening: Opening
    begun: Mapping[int, int] = field(default_factory=dict)

    def begins(self, choice: int) -> int:
        """The first token of `choice` that this signer answers for: it cannot begin later to hide some."""
        own = [part.first for part in self.receipt.parts if part.choice == choice and part.provider == LOCAL]
        return self.begun.get(choice, min(own, default=0))


Checker = Callable[[Subject], Awaitable[Verdict]]
Checkers = Mapping[Tier, Checker]


def subjects(signed: Signed) -> list[Subject]:
    """The signer's own part, if it made any, and those of the peers it names. InvalidRequest without an opening."""
    if signed.opening is None:
        raise InvalidRequest("expected the receipt's opening too: without it there is nothing to run again", "opening")
    receipt, opening = signed.receipt, signed.opening
    own = [Subject(receipt, opening)] if not receipt.parts or any(p.provider == LOCAL for p in receipt.parts) else []
    return own + [
        Subject(peer.receipt, _with_request(peer.opening, opening), _begun(receipt, peer.receipt))
        for peer in opening.nested
        if peer.opening is not None
    ]


def _with_request(shown: Opening, whole: Opening) -> Opening:
    return shown if shown.request is not None else replace(shown, request=whole.request)


def _begun(receipt: Receipt, peer: Receipt) -> dict[int, int]:
    """Where the part begins that the signer took from this receipt, in the peer's own count of tokens."""
    lengths, digest = {output.choice: output.num_tokens for output in peer.outputs}, receipt_digest(peer)
    mine = [part for part in receipt.parts if part.receipt == digest and part.choice in lengths]
    return {part.choice: lengths[part.choice] - part.count for part in mine}


async def check(subject: Subject, tier: Tier, checkers: Checkers, clock: Clock) -> Verdict:
    """The verdict of one tier. Unsupported where this node lacks it; other errors as its checker raises them."""
    if tier not in checkers:
        have = ", ".join(checkers) or "none"
        raise Unsupported(f"this node cannot check by {tier}; it can by: {have}")
    problems = inspect(Signed(subject.receipt, subject.opening)).problems
    if problems:
        return Verdict(tier, "fail", f"the receipt does not hold: {problems[0]}")
    began, began_cpu = clock.monotonic(), time.process_time()
    verdict = await checkers[tier](subject)
    cost = Cost(
        clock.monotonic() - began, time.process_time() - began_cpu, verdict.cost.tokens, verdict.cost.sent_bytes
    )
    return replace(verdict, cost=cost)


async def settle(subject: Subject, tier: Tier, checkers: Checkers, clock: Clock) -> tuple[Verdict, ...]:
    """Verdicts from `tier` upwards until one passes or nothing here settles more. A tier that errs is unsure."""
    verdicts: list[Verdict] = []
    step: Tier | None = tier
    while step is not None:
        try:
            verdicts.append(await check(subject, step, checkers, clock))
        except ShoalError as error:
            if not verdicts:
                raise
            verdicts.append(Verdict(step, "unsure", str(error)))
        step = next_tier(verdicts[-1], tuple(checkers), tuple(verdict.tier for verdict in verdicts))
    return tuple(verdicts)


def decided(verdicts: tuple[Verdict, ...]) -> Verdict:
    """The last that was not unsure: higher tiers overrule lower ones. All unsure: the last."""
    return next((verdict for verdict in reversed(verdicts) if verdict.outcome != "unsure"), verdicts[-1])
