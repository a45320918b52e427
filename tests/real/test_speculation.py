"""The default model with and without drafts: the same tokens, log-probabilities to the bit, and fewer steps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shoal.core.request import Message, Request, Sampling
from shoal.core.service import EngineStats, Service
from shoal.node.compose import compose
from shoal.node.config import NodeConfig

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PROMPTS = (
    "Repeat the word banana ten times.",
    "Count from one to twenty, one number per line.",
    "Why is the sky blue?",
    "Write a Python function that adds two numbers, then write it again.",
)

Told = list[tuple[int, float]]


async def ask(service: Service, prompt: str, temperature: float) -> Told:
    """Every token of the answer with its log-probability."""
    sampling = Sampling(temperature=temperature, seed=5, max_tokens=40, logprobs=0)
    request = Request("r", service.models()[0].id, (Message("user", prompt),), sampling)
    chunks = [chunk async for chunk in service.generate(request)]
    return [(entry.token_id, entry.logprob) for chunk in chunks for entry in chunk.logprobs]


def answers(config: NodeConfig) -> tuple[list[Told], EngineStats]:
    """Each prompt greedy and sampled: one after the other, and again together."""

    async def main() -> tuple[list[Told], EngineStats]:
        async with compose(config) as node:
            each = [(prompt, temperature) for prompt in PROMPTS for temperature in (0.0, 0.8)]
            alone = [await ask(node.service, *one) for one in each]
            together = await asyncio.gather(*(ask(node.service, *one) for one in each))
            return [*alone, *together], node.service.stats()

    return asyncio.run(main())


def test_the_default_model_answers_alike_with_and_without_drafts(home: Path, default_gguf: Path) -> None:
    config = NodeConfig(home=home, model=str(default_gguf), draft="off", context_length=1024, kv_memory=2**28)
    plain, before = answers(config)
    for draft in ("lookup", "suffix"):
        drafted, after = answers(NodeConfig(home=home, model=str(default_gguf), draft=draft, context_length=1024,
                                            kv_memory=2**28))  # fmt: skip
        assert drafted == plain, draft
        assert after.draft_accepted_total > 20
        assert after.steps_total < before.steps_total
