"""A sealer over a made-up engine, for tests of receipts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from shoal.core.chunk import Chunk, ToolCallDelta, Usage
from shoal.core.clock import VirtualClock
from shoal.core.receipt import Evidence, ModelIdentity, Signed
from shoal.core.request import Message, Request, Sampling
from shoal.core.seams import Generate
from shoal.crypto.keys import PrivateKey
from shoal.trust.seal import Policy, Sealer
from shoal.trust.shelf import Shelf

KEY = PrivateKey(bytes(range(32)))
PEER_KEY = PrivateKey(bytes(range(32, 64)))
TOKENS = tuple(range(100, 170))
PROMPT = (1, 2, 3, 4)
REQUEST = Request("chatcmpl-1", "tiny", (Message("user", "a secret"),), Sampling(seed=3, stop=("end",)), receipt=True)


def sealer(folder: Path, key: PrivateKey = KEY, policy: Policy = "asked") -> Sealer:
    return Sealer(key, Shelf(folder), VirtualClock(), lambda request: ModelIdentity(request.model, b"w" * 32), policy)


async def engine(request: Request) -> AsyncIterator[Chunk]:
    """As the engine: evidence on each choice's last chunk where a receipt is asked for; goes on behind `resume`."""
    given = request.resume.tokens if request.resume is not None else ()
    first = request.resume.choice if request.resume is not None else 0
    for index in range(first, first + request.n):
        tokens = tuple(token + index for token in TOKENS)
        for token in tokens[len(given) : -1]:
            yield Chunk(index, f"w{token} ", (token,))
        marks = tuple(bytes([at % 256]) * 9 * min(32, len(tokens) - at) for at in range(len(given), len(tokens), 32))
        evidence = Evidence(PROMPT, tokens, len(given), 3, marks) if request.receipt else None
        usage = Usage(len(PROMPT), len(tokens) * request.n) if index == first + request.n - 1 else None
        calls = (ToolCallDelta(0, "c", "f", "{}"),) if request.tools else ()
        yield Chunk(index, "end", tokens[-1:], (), calls, "stop", usage, evidence=evidence)


def answer(generate: Generate, request: Request = REQUEST) -> list[Chunk]:
    async def collect() -> list[Chunk]:
        return [chunk async for chunk in generate(request)]

    return asyncio.run(collect())


def signed_by(made: Sealer, request: Request = REQUEST) -> Signed:
    last = answer(made.sealed(engine), request)[-1]
    assert last.receipt is not None
    return Signed(last.receipt, last.opening)


def with_provider(generate: Generate, name: str, stop_after: int | None = None) -> Generate:
    """Chunks as a router passes them on, maybe not to the end."""

    async def routed(request: Request) -> AsyncIterator[Chunk]:
        count = 0
        async for chunk in generate(request):
            if stop_after is not None and count == stop_after:
                return
            count += 1
            yield replace(chunk, provider=name)

    return routed
