"""`shoal check`: run an answer again, or judge what was shown for it, and say whether its receipt tells the truth."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.node.commands.attest import Allow, Pin, Status
from shoal.node.config_sources import Loaded
from shoal.node.evidence import ALONE, Given, check_given, evidence_checker
from shoal.node.flags import ENGINE, configured
from shoal.node.terminal import write, write_json

if TYPE_CHECKING:
    from shoal.core.clock import Clock
    from shoal.node.config import NodeConfig
    from shoal.trust.check import Checker
    from shoal.trust.file import Shown
    from shoal.trust.verdict import Tier, Verdict

FAILED, UNSURE = 1, 3
"""Besides 0: everything passed, and 2: the file cannot be read, or the wish cannot be."""


@configured(*ENGINE)
def check(
    loaded: Loaded,
    file: Annotated[Path | None, typer.Argument(help="An answer of the API with its receipt and opening.")] = None,
    tier: Annotated[
        str, typer.Option("--tier", help="fingerprint (run it again), proof, attestation.")
    ] = "fingerprint",
    graph: Annotated[
        list[Path] | None, typer.Option(help="proof: a folder of `shoal prove graph`; repeatable.")
    ] = None,
    proof: Annotated[list[Path] | None, typer.Option(help="proof: a file of `shoal prove answer`; repeatable.")] = None,
    quote: Annotated[Path | None, typer.Option(help="attestation: the signer's hardware quote.")] = None,
    collateral: Annotated[Path | None, typer.Option(help="attestation: as for `attest verify`.")] = None,
    nonce: Annotated[str | None, typer.Option(help="attestation: the one you gave (64 hex digits).")] = None,
    allow: Allow = None,
    status: Status = None,
    nvidia_key: Pin = None,
    at: Annotated[str | None, typer.Option(help="attestation: judge as of this time (ISO 8601), not now.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Instead: draw limits between the ways this machine can compute.")
    ] = False,
    answers: Annotated[int, typer.Option(min=40, max=10_000, help="With --calibrate: of each way.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check that an answer is what its receipt says: with the model itself, or with proofs or a quote made for it.

    Exit codes: 0 passed, 1 failed, 2 unreadable, 3 could not tell.
    """
    from shoal.node.fetch import ensure_model

    if calibrate == (file is not None):
        raise BadConfig("file", "expected either an answer to check or --calibrate")
    given = Given(tuple(graph or ()), tuple(proof or ()), quote, collateral, nonce, allow, status, nvidia_key, at)
    chosen = _tier(tier)
    check_given(chosen, given)
    if calibrate:
        if chosen != "fingerprint":
            raise BadConfig("--calibrate", f"draws limits for the tier fingerprint; {chosen} has none")
        from shoal.node.calibrating import calibrate as draw

        ensure_model(loaded.config)
        asyncio.run(draw(loaded.config, answers))
        return
    assert file is not None, "one of the two is given"
    shown = _read(file)
    if chosen == "fingerprint":
        ensure_model(loaded.config)
    verdicts = asyncio.run(_verdicts(loaded.config, shown, chosen, given))
    _show(verdicts, as_json)
    outcomes = {verdict.outcome for verdict in verdicts}
    code = FAILED if "fail" in outcomes else UNSURE if "unsure" in outcomes else 0
    if code:
        raise typer.Exit(code)


def _read(file: Path) -> list[Shown]:
    from shoal.trust.file import read_answers

    try:
        return read_answers(file)
    except InvalidRequest as error:
        raise BadConfig("receipt", str(error)) from error


def _tier(text: str) -> Tier:
    from shoal.trust.verdict import TIERS

    tier = next((tier for tier in TIERS if tier == text), None)
    if tier is None:
        raise BadConfig("tier", f"expected one of {', '.join(TIERS)}, found {text!r}")
    if tier not in ALONE:  # said before a model is loaded; `check` would say it too
        able = ", ".join(ALONE)
        raise BadConfig("tier", f"one machine alone cannot check a chat answer by {tier}; it can by: {able}")
    return tier


async def _verdicts(config: NodeConfig, answers: list[Shown], tier: Tier, given: Given) -> list[Verdict]:
    """Of every part of every answer. A model is loaded only where it runs the answers again."""
    from shoal.core.clock import SystemClock
    from shoal.node.checking import find_limits, rerunners
    from shoal.node.compose import compose
    from shoal.trust.fingerprint_check import FingerprintCheck

    clock = SystemClock()
    if tier != "fingerprint":
        return await _judged(answers, tier, evidence_checker(config.home, tier, given, answers), clock)
    async with compose(config) as node:
        checker = FingerprintCheck(rerunners(node, clock), find_limits(config.home))
        return await _judged(answers, tier, checker, clock)


async def _judged(answers: list[Shown], tier: Tier, checker: Checker, clock: Clock) -> list[Verdict]:
    """What this machine cannot tell is unsure; text that was not signed fails."""
    from shoal.trust.check import check, subjects
    from shoal.trust.verdict import Verdict

    found = []
    for one in answers:
        if one.problems and one.signed.opening is not None:
            found.append(Verdict(tier, "fail", "; ".join(one.problems)))
            continue
        try:
            found += [await check(subject, tier, {tier: checker}, clock) for subject in subjects(one.signed)]
        except InvalidRequest as error:
            found.append(Verdict(tier, "unsure", str(error)))
    return found


def _show(verdicts: list[Verdict], as_json: bool) -> None:
    from shoal.core.text import plain
    from shoal.node.checking import verdict_in_words

    if as_json:
        write_json([_plain(verdict) for verdict in verdicts])
        return
    for verdict in verdicts:
        write(f"{plain(verdict_in_words(verdict))}\n")
        for finding in verdict.findings:
            measured = "" if finding.measured is None else f"{finding.measured:.4g}"
            limit = "" if finding.limit is None else f", limit {finding.limit:.4g}"
            write(f"  {finding.name} {measured}{limit}: {finding.text}\n")


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        "tier": verdict.tier,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "findings": {item.name: {"measured": item.measured, "limit": item.limit} for item in verdict.findings},
        "cost": {"wall_s": verdict.cost.wall_s, "cpu_s": verdict.cost.cpu_s, "tokens": verdict.cost.tokens},
    }
