"""Honest answers, run again: the samples that limits are drawn from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from shoal.core.errors import LocalError
from shoal.core.receipt import Evidence
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.trust.check_rerun import Differences, Question, Rerunner, differences


async def evidence_of(generate: Generate, requests: Sequence[Request]) -> list[Evidence]:
    """What the engine recorded of each answer, in order; all at once, so that they share its batches."""
    return list(await asyncio.gather(*(_evidence(generate, request) for request in requests)))


async def _evidence(generate: Generate, request: Request) -> Evidence:
    found: Evidence | None = None
    async with closing(generate(replace(request, receipt=True, n=1))) as chunks:
        async for chunk in chunks:
            found = chunk.evidence or found
    if found is None:
        raise LocalError("expected an engine that records evidence, found one that does not")
    return found


def question_of(request: Request, evidence: Evidence) -> Question:
    """What is run again: the request with the seed that was drawn for it."""
    sampling = replace(request.sampling, seed=evidence.seed)
    return Question(replace(request, sampling=sampling), evidence.prompt, evidence.tokens, evidence.begins, 0)


async def compare(rerunner: Rerunner, request: Request, evidence: Evidence) -> Differences:
    """One answer run again here, and how far it lies from what was recorded."""
    return differences(evidence.fingerprints, await rerunner.rerun(question_of(request, evidence)))
