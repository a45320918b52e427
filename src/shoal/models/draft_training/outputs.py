"""What the target itself says: the data a draft is aligned on (sequence-level distillation, 2411.11055 section 3.3).

Rules that stay true in this file:
- output number i has a prompt, a temperature and a seed that depend on i alone, so that it does not matter in which
  order outputs end, or how often the gathering is interrupted;
- a line of the file is one whole output; what an interrupted write left is dropped.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from shoal.core.chunk import Chunk
from shoal.core.errors import BadConfig
from shoal.core.request import Request, Sampling
from shoal.core.seams import Generate
from shoal.models.draft_training.prompts import Prompts

TEMPERATURES = (0.0, 0.6, 0.8, 1.0)
"""By turns (2411.11055 section 3.3): greedy and three kinds of sampling, since a draft meets both."""

MAX_TOKENS = 160
"""Of one output: most of what there is to learn is in the first hundred."""

AT_ONCE = 24
"""Requests in flight: wide batches make the target several times as fast as one answer at a time."""


@dataclass(frozen=True, slots=True)
class Output:
    """Token ids of one prompt and of what the target made of it, its end token included."""

    index: int
    temperature: float
    prompt: list[int]
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Gathering:
    """count outputs of at most max_tokens tokens each; seed makes them, minutes (None: no limit) stops early."""

    count: int
    max_tokens: int = MAX_TOKENS
    seed: int = 0
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked: any `Generate`, and the model's name there."""

    generate: Generate
    model: str


Report = Callable[[str, int, int], None]
"""(phase, done, total): called often; must be cheap."""


def read_outputs(path: Path) -> list[Output]:
    """Every whole line, by number. BadConfig for a file that is something else."""
    found: dict[int, Output] = {}
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            output = Output(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise BadConfig("outputs", f"{path}, line {number}: expected one output, found {error}") from error
        found[output.index] = output
    return [found[index] for index in sorted(found)]


async def gather(target: Target, prompts: Prompts, options: Gathering, path: Path, report: Report) -> list[Output]:
    """Ask until `path` holds `count` outputs or the time is up; what is there already is kept."""
    _drop_half_line(path)
    done = {output.index for output in read_outputs(path)}
    missing = iter(sorted(set(range(options.count)) - done))
    ends_at = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    with path.open("a", encoding="utf-8") as file:

        async def work() -> None:
            for index in missing:
                if ends_at is not None and time.monotonic() > ends_at:
                    return
                file.write(json.dumps(asdict(await _ask(target, prompts, options, index))) + "\n")
                file.flush()
                done.add(index)
                report("outputs", len(done), options.count)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    return read_outputs(path)


async def _ask(target: Target, prompts: Prompts, options: Gathering, index: int) -> Output:
    """One answer to one prompt. The prompt may itself be asked for: a user's turn that the target makes up."""
    seed = options.seed * 1_000_003 + index

    async def complete(name: str, tokens: Sequence[int], temperature: float, limit: int) -> list[int]:
        sampling = Sampling(temperature=temperature, max_tokens=limit, seed=seed)
        request = Request(f"draft-{name}-{index}", target.model, tuple(tokens), sampling)
        async with aclosing(cast(Any, target.generate(request))) as stream:
            return [token async for chunk in stream for token in cast(Chunk, chunk).token_ids]

    prompt = prompts.fixed(index)
    if prompt is None:
        prompt = prompts.around(await complete("ask", prompts.opening, 1.0, 48))
    temperature = TEMPERATURES[index % len(TEMPERATURES)]
    return Output(index, temperature, prompt, await complete("answer", prompt, temperature, options.max_tokens))


def _drop_half_line(path: Path) -> None:
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            path.write_bytes(data[: data.rfind(b"\n") + 1])
