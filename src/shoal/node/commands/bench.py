"""`shoal bench`: how fast this machine is with this model. Comparisons with peers are in the repository's `bench/`."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from shoal.core.request import Request, Sampling
from shoal.core.seams import Generate
from shoal.node.answering import Answerer, Place, answering, prepare
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, configured
from shoal.node.terminal import say, write_json, write_table


@dataclass(frozen=True, slots=True)
class Row:
    """`tokens_per_s` counts prompt tokens for "prefill", tokens of all answers together for "decode"."""

    what: str
    batch: int
    tokens: int
    tokens_per_s: float


@configured(*ENGINE)
def bench(
    loaded: Loaded,
    tokens: Annotated[int, typer.Option("--tokens", min=8, max=2048, help="Length of each answer.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Measure prefill and decode speed on this machine, in this process."""
    prepare(loaded.config, Place())
    rows = asyncio.run(_bench(loaded, tokens))
    if as_json:
        write_json({"model": loaded.config.model, "rows": [asdict(row) for row in rows]})
        return
    cells = [(row.what, str(row.batch), str(row.tokens), f"{row.tokens_per_s:,.1f}") for row in rows]
    write_table(("what", "batch", "tokens", "tokens/s"), cells)


async def _bench(loaded: Loaded, tokens: int) -> list[Row]:
    async with answering(loaded.config, Place()) as answerer:
        say(f"measuring {answerer.model}")
        await _timed(answerer, prompt_tokens=32, tokens=4, batch=1)  # pages are touched, kernels loaded
        rows = [await _prefill(answerer, length) for length in (128, 512)]
        batches = [size for size in (1, 8) if size <= loaded.config.max_running]
        return rows + [await _decode(answerer, tokens, batch) for batch in batches]


async def _prefill(answerer: Answerer, length: int) -> Row:
    return Row("prefill", 1, length, length / await _timed(answerer, length, 1, 1))


async def _decode(answerer: Answerer, tokens: int, batch: int) -> Row:
    """The time of long answers less that of one-token ones: what is left is `tokens - 1` decode steps."""
    alone = await _timed(answerer, 16, 1, batch)
    elapsed = await _timed(answerer, 16, tokens, batch)
    return Row("decode", batch, tokens, batch * (tokens - 1) / max(elapsed - alone, 1e-9))


async def _timed(answerer: Answerer, prompt_tokens: int, tokens: int, batch: int) -> float:
    """Seconds for `batch` requests at once, each with a prompt of its own, so that no prefix is shared."""
    requests = [_request(answerer.model, prompt_tokens, tokens, random.getrandbits(32)) for _ in range(batch)]
    began = time.perf_counter()
    await asyncio.gather(*(_drain(answerer.generate, request) for request in requests))
    return time.perf_counter() - began


def _request(model: str, prompt_tokens: int, tokens: int, index: int) -> Request:
    name = f"bench-{prompt_tokens}-{tokens}-{index}"
    prompt = tuple(random.Random(name).choices(range(100, 1000), k=prompt_tokens))  # noqa: S311 - any tokens will do
    return Request(name, model, prompt, Sampling(temperature=0.0, ignore_eos=True, max_tokens=tokens))


async def _drain(generate: Generate, request: Request) -> None:
    async for _ in generate(request):
        pass
