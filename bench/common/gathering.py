"""Answers of honest and cheating machines, run again on checking ones: differences at every position, kept on disk."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.answerers import Arithmetic, Machine, cheating_models, machine
from shoal.core.receipt import Evidence
from shoal.core.request import Request
from shoal.models.checkpoint import Checkpoint
from shoal.trust.calibrate_run import evidence_of, question_of
from shoal.trust.check_rerun import Differences, Question, differences

Claim = tuple[Question, tuple[bytes, ...]]
"""What a receipt claims: the question it says was answered, and fingerprints."""


async def honest_claims(checkpoint: Checkpoint, arithmetic: Arithmetic, asked: Sequence[Request]) -> list[Claim]:
    async with machine(checkpoint, arithmetic) as here:
        return _claims(asked, await evidence_of(here.engine.generate, asked))


def _claims(asked: Sequence[Request], evidence: Sequence[Evidence]) -> list[Claim]:
    return [(question_of(r, e), e.fingerprints) for r, e in zip(asked, evidence, strict=True)]


async def cheating_claims(
    checkpoint: Checkpoint, arithmetic: Arithmetic, asked: Sequence[Request]
) -> dict[str, list[Claim]]:
    """By name of the cheat; every one is presented as the answer to `asked` by `checkpoint`."""
    claims: dict[str, list[Claim]] = {}
    for name, make in cheating_models(checkpoint).items():
        claims[name] = await honest_claims(make(), arithmetic, asked)
        print(f"  {name}: answered", file=sys.stderr)
    async with machine(checkpoint, arithmetic) as here:
        honest = _claims(asked, await evidence_of(here.engine.generate, asked))
        short = [_shortened(question) for question, _ in honest]
        claims["prompt cut to its second half"] = await _other_prompt(here, honest, short)
        claims["cached answer of another prompt"] = [
            (replace(question, tokens=other.tokens), prints)
            for (question, _), (other, prints) in zip(honest, honest[1:] + honest[:1], strict=True)
        ]
        claims["tokens of 2 bits, true activations"] = await _reprinted(here, [q for q, _ in claims["2 bits"]])
        claims["one token altered, true activations"] = await _reprinted(here, [_altered(q) for q, _ in honest])
        claims["one token altered"] = [(_altered(question), prints) for question, prints in honest]
    return claims


def _shortened(question: Question) -> Question:
    return replace(question, prompt=question.prompt[len(question.prompt) // 2 :])


def _altered(question: Question) -> Question:
    """The token in the middle of each 32 becomes another, the next id."""
    tokens = list(question.tokens)
    for at in range(min(16, len(tokens) - 1), len(tokens), 32):
        tokens[at] = tokens[at] - 1 if tokens[at] else 1
    return replace(question, tokens=tuple(tokens))


async def _other_prompt(here: Machine, honest: Sequence[Claim], short: Sequence[Question]) -> list[Claim]:
    asked = [
        replace(question.request, prompt=cut.prompt, request_id=f"cut{number}")
        for number, ((question, _), cut) in enumerate(zip(honest, short, strict=True))
    ]
    found = await evidence_of(here.engine.generate, asked)
    return [
        (replace(question, tokens=evidence.tokens), evidence.fingerprints)
        for (question, _), evidence in zip(honest, found, strict=True)
    ]


async def _reprinted(here: Machine, questions: Sequence[Question]) -> list[Claim]:
    return [(question, (await here.rerunner.rerun(question)).fingerprints) for question in questions]


async def compared(here: Machine, claims: Sequence[Claim]) -> list[Differences]:
    return [differences(prints, await here.rerunner.rerun(question)) for question, prints in claims]


async def gather(
    checkpoint: Checkpoint, checked: Arithmetic, claims: dict[str, list[Claim]]
) -> dict[str, list[Differences]]:
    found = {}
    async with machine(checkpoint, checked) as here:
        for name, listed in claims.items():
            began = time.process_time()
            found[name] = await compared(here, listed)
            print(f"  {name}: checked in {time.process_time() - began:.1f} CPU-s", file=sys.stderr)
    return found


def save(path: Path, found: dict[str, dict[str, list[Differences]]]) -> None:
    """One array (positions, 3) for each answer, named CHECKER|CLAIM|NUMBER."""
    arrays = {
        f"{checker}|{claim}|{number}": np.column_stack([one.drift, one.logit, one.gap]).astype(np.float32)
        for checker, by_claim in found.items()
        for claim, listed in by_claim.items()
        for number, one in enumerate(listed)
    }
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> dict[str, dict[str, list[Differences]]]:
    found: dict[str, dict[str, list[Differences]]] = {}
    with np.load(path) as file:
        for key in file.files:
            checker, claim, _ = key.split("|")
            found.setdefault(checker, {}).setdefault(claim, []).append(Differences(*file[key].astype(np.float64).T))
    return found


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]
