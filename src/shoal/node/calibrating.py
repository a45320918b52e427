"""`shoal check --calibrate`: limits between the ways this machine can compute its model, from honest answers."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from shoal.core.clock import SystemClock
from shoal.core.errors import ShoalError
from shoal.core.receipt import Evidence, ModelIdentity
from shoal.core.request import Request, Sampling
from shoal.node.checking import LIMITS_FILE, rerunners
from shoal.node.compose import compose
from shoal.node.config import NodeConfig
from shoal.node.terminal import say
from shoal.trust.calibrate import Limits, Pair, arithmetic, draw_limits
from shoal.trust.calibrate_file import format_limits, read_limits
from shoal.trust.calibrate_run import compare, evidence_of

ANSWER_TOKENS = 64
FRAMES = ("Explain {}.", "A short poem about {}:\n", "Five facts about {}:\n1.", "Q: What is {}?\nA:", "{} and")
TOPICS = ("volcanoes", "inflation", "chess", "bread", "the moon", "jazz", "vaccines", "bridges", "bees", "sleep", "tea")


def ways(config: NodeConfig) -> Iterator[NodeConfig]:
    """The configuration itself first, then what else this machine could be told to compute with."""
    yield config
    if config.kernels != "torch" and config.device in ("auto", "cpu"):
        for bits, kv in itertools.product((8, 16), ("f16", "int8")):
            way = replace(config, activation_bits=bits, kv_type=kv, kernels="native")  # type: ignore[arg-type]
            if (bits, kv) != (config.activation_bits or 8, config.kv_type or "f16"):
                yield way
        if importlib.util.find_spec("torch") is not None:
            yield replace(config, kernels="torch", activation_bits=None, kv_type=None, device="cpu")


def requests(model: str, count: int) -> list[Request]:
    """Plain text, so that models without a chat template can be calibrated; a third greedy."""
    texts = itertools.cycle(frame.format(topic) for topic in TOPICS for frame in FRAMES)
    return [
        Request(
            f"calibrate-{number}",
            model,
            next(texts),
            Sampling(temperature=(0.0, 0.7, 1.0)[number % 3], seed=number, max_tokens=ANSWER_TOKENS, ignore_eos=True),
        )
        for number in range(count)
    ]


async def calibrate(config: NodeConfig, count: int) -> None:
    """Answers of every way, run again the first way; limits go to this node's file. Raises as `compose` does."""
    answered: list[tuple[ModelIdentity, list[Request], list[Evidence]]] = []
    config = replace(config, draft="off")
    for way in ways(config):
        try:
            async with compose(way) as node:
                asked = requests(node.engine.config.model, count)
                identity = node.identities.of(asked[0])
                say(f"{count} answers by {arithmetic(identity)}")
                answered.append((identity, asked, await evidence_of(node.engine.generate, asked)))
        except ShoalError as error:
            if way is config:
                raise
            say(f"left out: {error}")
    drawn = await _limits(config, answered)
    save(config.home / LIMITS_FILE, drawn)
    say(f"limits for {len(drawn)} pairs are in {config.home / LIMITS_FILE}")


async def _limits(
    config: NodeConfig, answered: list[tuple[ModelIdentity, list[Request], list[Evidence]]]
) -> list[Limits]:
    drawn = []
    async with compose(config) as node:
        find = rerunners(node, SystemClock())
        rerunner = await find(answered[0][1][0])
        for identity, asked, found in answered[1:]:  # of the way itself every bit agrees
            pair = Pair(arithmetic(identity), arithmetic(rerunner.identity), identity.quantization)
            say(f"run again: {pair.answered}")
            answers = [await compare(rerunner, *one) for one in zip(asked, found, strict=True)]
            origin = f"shoal check --calibrate, {identity.name}, {len(answers)} answers of {ANSWER_TOKENS} tokens"
            drawn.append(draw_limits(pair, answers, origin))
    return drawn


def save(path: Path, drawn: list[Limits]) -> None:
    """Beside what is there for other pairs. OSError as files do."""
    pairs = {limits.pair for limits in drawn}
    kept = [limits for limits in read_limits(path) if limits.pair not in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    staged.write_text(format_limits([*kept, *drawn]))
    staged.replace(path)
