"""A node that checks: its model as a rerunner, the limits it knows, audits of peers' answers, verifying for others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from shoal.core.clock import Clock
from shoal.core.receipt import ModelIdentity
from shoal.core.request import Request
from shoal.core.units import format_duration
from shoal.engine.sampler import SamplerState
from shoal.fleet.accounts import Accounts
from shoal.fleet.provider import Provider
from shoal.mesh.peer_id import PeerId
from shoal.node.audit_wishes import MEANS, TRUST, Wished, no_audits, policy_of
from shoal.node.compose import Node
from shoal.node.fleet import Fleet
from shoal.node.meshing import Mesh
from shoal.node.standings import Keeping
from shoal.node.terminal import say
from shoal.trust.calibrate_file import find, read_limits, shipped_limits
from shoal.trust.check import Checker
from shoal.trust.check_audit import Audits, Record
from shoal.trust.check_rerun import FindRerunner, Question, Rerunner
from shoal.trust.distribution_check import DistributionCheck
from shoal.trust.distribution_serve import Verifier
from shoal.trust.fingerprint_check import FindLimits, FingerprintCheck
from shoal.trust.policy import Draw, Policy, answers_needed
from shoal.trust.verdict import Tier, Verdict

PRIORITY = 900
"""Behind every request, peers' included (`fleet.accounts.PEER_PRIORITY`)."""
LIMITS_FILE = Path("checks", "limits.json")
LOOK_S = 0.05
UNSIGNED = "its answer came without a receipt that can be checked"

IsIdle = Callable[[], bool]


def find_limits(home: Path) -> FindLimits:
    """Those drawn on this machine first, then those that ship with Shoal. BadConfig for a file that is none."""
    known = (*read_limits(home / LIMITS_FILE), *shipped_limits())
    return partial(find, known)


def rerunners(node: Node, clock: Clock, is_idle: IsIdle = lambda: True) -> FindRerunner:
    """This node's model, for requests with any adapter that is loaded. Between two pieces of work nobody waits."""

    async def pause() -> None:
        while not is_idle():
            await clock.sleep(LOOK_S)

    async def find_rerunner(request: Request) -> Rerunner:
        identity: ModelIdentity = await asyncio.to_thread(node.identities.of, request)
        session = partial(node.engine.session, request.adapter, PRIORITY)
        num_layers = node.engine.config.num_layers
        return Rerunner(identity, num_layers, session, node.language.prompt, partial(_state, node), pause)

    return find_rerunner


def _state(node: Node, question: Question) -> SamplerState:
    tokenizer, request = node.language.tokenizer, question.request
    return SamplerState(
        request.sampling,
        choice=question.choice,
        prompt=question.prompt,
        vocab_size=min(node.engine.vocab_size, tokenizer.vocab_size),
        eos_ids=tokenizer.eos_ids,
        matcher=node.language.matcher(request),
    )


@asynccontextmanager
async def among_peers(policies: Sequence[Policy], node: Node, mesh: Mesh, fleet: Fleet) -> AsyncIterator[Wished]:
    """Verify for peers that are served here, and check a share of peers' answers, as long as this is open.

    Gives what makes a policy of a request's own wish.
    """

    def is_idle() -> bool:
        stats = node.engine.stats()
        return stats.num_running == 0 and stats.num_waiting == 0

    find_rerunner = rerunners(node, mesh.clock, is_idle)
    admit = partial(_admitted, mesh.accounts, mesh.clock)
    Verifier(mesh.parts.place.key, find_rerunner, admit, mesh.clock).register(mesh.parts.rpc)
    if not policies:
        yield no_audits
        return
    keeping = None if mesh.ledger is None else Keeping(mesh.ledger)
    audits = _audits(policies, find_rerunner, mesh, fleet, is_idle, keeping)
    for policy in policies:
        count = answers_needed(0.99, policy.rate, 0.1)
        say(f"audits by {policy}: if one in ten of a peer's answers is fraud, {count} answers show it with 99 %")
    tasks = [asyncio.create_task(audits.run())]
    tasks += [] if keeping is None else [asyncio.create_task(keeping.run())]
    try:
        yield audits.wished
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _audits(
    policies: Sequence[Policy],
    find_rerunner: FindRerunner,
    mesh: Mesh,
    fleet: Fleet,
    is_idle: IsIdle,
    keeping: Keeping | None,
) -> Audits:
    checkers: dict[Tier, Checker] = {"fingerprint": FingerprintCheck(find_rerunner, find_limits(fleet.config.home))}
    if any(policy.tier == "distribution" for policy in policies):  # it shows prompts to others, so only where asked for
        key, candidates = mesh.parts.place.key, partial(_candidates, mesh)
        checkers["distribution"] = DistributionCheck(key, mesh.parts.rpc, candidates)
    wished = partial(policy_of, TRUST[mesh.sharing], {tier: MEANS[tier] for tier in checkers})
    draw = Draw(secrets.token_bytes(32))
    audits = Audits(
        policies,
        draw,
        checkers,
        mesh.clock,
        is_idle,
        partial(_told, fleet, keeping),
        partial(fleet.distrust, reason=UNSIGNED),
        wished,
    )

    def audited(provider: Provider) -> Provider:
        if provider.kind != "peer":
            return provider
        return replace(provider, generate=audits.audited(provider.generate, provider.name))

    fleet.audited = audited
    if fleet.signing is not None:
        fleet.signing.verdicts = lambda request_id: [in_words(record) for record in audits.records(request_id)]
        fleet.signing.audits = lambda: dict(audits.counts)
    return audits


def _told(fleet: Fleet, keeping: Keeping | None, record: Record) -> None:
    """A failed check keeps the router away from the peer for a while; every check goes into the ledger."""
    if keeping is not None:
        keeping.told(record)
    if record.verdict.outcome == "fail":
        fleet.distrust(record.peer, f"a check of its answer failed: {record.verdict.reason}")


def _candidates(mesh: Mesh, model: ModelIdentity) -> list[PeerId]:
    """Peers that say they serve the model by this name; whether they verify is found out by asking."""
    return [PeerId.parse(provider.name) for provider in mesh.providers() if model.name in provider.models]


@contextmanager
def _holding(accounts: Accounts, clock: Clock, peer: PeerId, num_tokens: int) -> Iterator[None]:
    accounts.admit(peer, is_member=accounts.limits.sharing == "swarm", now=clock.monotonic())
    try:
        yield
    finally:
        accounts.settle(peer, num_tokens, clock.monotonic())


def _admitted(accounts: Accounts, clock: Clock, peer: PeerId, num_tokens: int) -> AbstractContextManager[None]:
    """As for any request of a peer: the owner's consent, and the same limits."""
    return _holding(accounts, clock, peer, num_tokens)


def in_words(record: Record) -> str:
    return f"{verdict_in_words(record.verdict)} (the part of {record.peer[:10]})"


def verdict_in_words(verdict: Verdict) -> str:
    """Begins with "passed", "failed" or "unsure": the console's badge looks at that."""
    took = f"{format_duration(verdict.cost.wall_s)}, {verdict.cost.tokens} tokens computed again"
    outcome = {"pass": "passed", "fail": "failed", "unsure": "unsure after"}[verdict.outcome]
    return f"{outcome} the {verdict.tier} check: {verdict.reason} ({took})"
