"""What the engine adds to a decode step: tokens per second of the whole engine against its bare runner.

Claim: scheduling, paging, sampling, text and handing chunks to an event loop cost less than a tenth of a step at batch
1, 8 and 32. Both run the same file in one process in short turns: the runner is given ready batches and its logits are
not looked at; the engine answers requests, and the clock is the reader's. Shares are medians over pairs of turns.

    python bench/overhead.py [--quick] [--model FILE] [--threads N]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np

from common.replay import opened
from common.report import finish, machine, summary, table
from shoal.core.request import Request, Sampling
from shoal.models.batch import Batch
from shoal.models.checkpoint import open_checkpoint
from shoal.models.native_runner import NativeRunner
from shoal.node.compose import Node

BATCHES = (1, 8, 32)
CONTEXT = 128
STEPS = 24
BLOCK = 16
BLOCKS = 64
"""Of each sequence of the bare runner."""

COUNTER = itertools.count()


def bare_batch(rng: np.random.Generator, size: int, start: int, rows: int) -> Batch:
    """`rows` tokens of each of `size` sequences, from position `start` on, with one output row each."""
    tables = np.arange(size * BLOCKS, dtype=np.int32).reshape(size, BLOCKS)
    positions = np.tile(np.arange(start, start + rows, dtype=np.int32), size)
    owner = np.repeat(np.arange(size), rows)
    return Batch(
        tokens=rng.integers(1000, 20_000, size * rows).astype(np.int32),
        positions=positions,
        slots=(tables[owner, positions // BLOCK] * BLOCK + positions % BLOCK).astype(np.int32),
        query_start=np.arange(0, size * rows + 1, rows, dtype=np.int32),
        context_lens=np.full(size, start + rows, np.int32),
        block_tables=tables,
        adapters=np.full(size, -1, np.int32),
        output_rows=np.arange(rows - 1, size * rows, rows, dtype=np.int32),
    )


def fill(runner: NativeRunner, rng: np.random.Generator) -> None:
    for start in range(0, CONTEXT, BLOCK):
        runner.run(bare_batch(rng, max(BATCHES), start, BLOCK))


def bare(runner: NativeRunner, rng: np.random.Generator, size: int, steps: int) -> float:
    """Tokens per second of decode steps behind CONTEXT tokens, which `fill` has put there."""
    batches = [bare_batch(rng, size, CONTEXT + step, 1) for step in range(steps)]
    began = time.perf_counter()
    for batch in batches:
        runner.run(batch)
    return size * steps / (time.perf_counter() - began)


async def engine(node: Node, prompts: list[list[int]], steps: int) -> float:
    """As `bare`, from when the last answer has its first token. After the first turn prompts come from the cache."""
    size = len(prompts)
    answers = await asyncio.gather(*(answer(node, prompt, steps + size) for prompt in prompts))
    start = max(times[0] for times in answers)
    rest = sorted(moment for times in answers for moment in times if moment > start)[: steps * size]
    return len(rest) / (rest[-1] - start)


async def answer(node: Node, prompt: list[int], max_tokens: int) -> list[float]:
    """When each token came."""
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    request = Request(f"o{next(COUNTER)}", node.service.models()[0].id, tuple(prompt), sampling)
    times: list[float] = []
    async for chunk in node.service.generate(request):
        times += [time.perf_counter()] * len(chunk.token_ids)
    return times


async def measure(model: Path | None, threads: int, turns: int, steps: int) -> dict[tuple[str, int], list[float]]:
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    rng = np.random.default_rng(20261123)
    prompts = rng.integers(1000, 20_000, (max(BATCHES), CONTEXT)).tolist()
    async with opened(model, threads=threads, draft="off") as node:
        checkpoint = open_checkpoint(model or default_model())
        blocks = max(BATCHES) * BLOCKS
        with closing(NativeRunner(checkpoint, num_blocks=blocks, block_size=BLOCK, threads=threads)) as runner:
            fill(runner, rng)
            for turn in range(turns + 1):
                for size in BATCHES:
                    first = await engine(node, prompts[:size], steps) if turn % 2 else 0.0
                    found = {"runner": bare(runner, rng, size, steps)}
                    found["engine"] = first or await engine(node, prompts[:size], steps)
                    for name, speed in found.items() if turn else ():  # the first turn warms up
                        times[name, size].append(speed)
    return times


def default_model() -> Path:
    from shoal.models.store import Store
    from shoal.node.config_sources import load

    config = load({}, os.environ).config
    return Store(config.home).resolve(config.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="eight turns instead of thirty")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    times = asyncio.run(measure(options.model, options.threads, 8 if options.quick else 30, STEPS))
    speed = {key: summary(values)["median"] for key, values in times.items()}
    cells, rows, ratios = [], [], {}
    for size in BATCHES:
        runner, whole = speed["runner", size], speed["engine", size]
        pairs = list(zip(times["runner", size], times["engine", size], strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        added = statistics.median(1e6 * size * (1 / b - 1 / a) for a, b in pairs)
        cells.append((str(size), f"{runner:.0f}", f"{whole:.0f}", f"{added:.0f}", f"{1 - ratio:.1%}"))
        ratios[f"engine_{size}"] = ratio
    for (name, size), values in times.items():
        rows.append({"who": name, "batch": size, "figure": "decode_tokens_per_s", **summary(values)})
    table(("batch", "runner tok/s", "engine tok/s", "added us/step", "share of step"), cells)
    finish("overhead", rows, ratios, machine())


if __name__ == "__main__":
    main()
