"""`shoal check`: run an answer again and say whether its receipt tells the truth. Exit codes below."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, configured
from shoal.node.terminal import write, write_json

if TYPE_CHECKING:
    from shoal.node.config import NodeConfig
    from shoal.trust.file import Shown
    from shoal.trust.verdict import Tier, Verdict

FAILED, UNSURE = 1, 3
"""Besides 0: everything passed, and 2: the file cannot be read, or the wish cannot be."""


@configured(*ENGINE)
def check(
    loaded: Loaded,
    file: Annotated[Path | None, typer.Argument(help="An answer of the API with its receipt and opening.")] = None,
    tier: Annotated[str, typer.Option("--tier", help="How; fingerprint: the model runs it again.")] = "fingerprint",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Instead: draw limits between the ways this machine can compute.")
    ] = False,
    answers: Annotated[int, typer.Option(min=40, max=10_000, help="With --calibrate: of each way.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check with the model itself that an answer is what its receipt says.

    Exit codes: 0 passed, 1 failed, 2 unreadable, 3 could not tell.
    """
    from shoal.node.fetch import ensure_model

    if calibrate == (file is not None):
        raise BadConfig("file", "expected either an answer to check or --calibrate")
    if calibrate:
        from shoal.node.calibrating import calibrate as draw

        ensure_model(loaded.config)
        asyncio.run(draw(loaded.config, answers))
        return
    assert file is not None, "one of the two is given"
    shown, chosen = _read(file), _tier(tier)
    ensure_model(loaded.config)
    verdicts = asyncio.run(_verdicts(loaded.config, shown, chosen))
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
    if tier != "fingerprint":  # said before a model is loaded; `check` would say it too
        raise BadConfig("tier", f"one machine alone cannot check a chat answer by {tier}; it can by: fingerprint")
    return tier


async def _verdicts(config: NodeConfig, answers: list[Shown], tier: Tier) -> list[Verdict]:
    """Of every part of every answer. What this machine cannot tell is unsure; text that was not signed fails."""
    from shoal.core.clock import SystemClock
    from shoal.node.checking import find_limits, rerunners
    from shoal.node.compose import compose
    from shoal.trust.check import Checker, check, subjects
    from shoal.trust.fingerprint_check import FingerprintCheck
    from shoal.trust.verdict import Verdict

    clock, found = SystemClock(), []
    async with compose(config) as node:
        checkers: dict[Tier, Checker] = {
            "fingerprint": FingerprintCheck(rerunners(node, clock), find_limits(config.home))
        }
        for one in answers:
            if one.problems and one.signed.opening is not None:
                found.append(Verdict(tier, "fail", "; ".join(one.problems)))
                continue
            try:
                found += [await check(subject, tier, checkers, clock) for subject in subjects(one.signed)]
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
