"""A small member first; a larger one only where the small one was not sure; nothing at all where the answer is known.

The idea of two complementary networks and a memory (arXiv 2412.01039) for text: confidence is the mean log-probability
of the answer's tokens, the memory holds whole answers to whole requests. An attempt that was not good enough is
charged: the usage is that of every member asked.

The memory answers only requests whose answer cannot differ: the same fields, and temperature 0 or a seed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from shoal.core.chunk import Chunk, TokenLogprob
from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, ShoalError
from shoal.core.request import Request
from shoal.core.seams import Generate, closing
from shoal.core.usage import Usage
from shoal.think.answers import Member
from shoal.think.spent import Spent

DEFAULT_CONFIDENCE = -0.5
"""Nats per token: below it the next member is asked. Choose it on answers of your own; `bench/cascade.py` shows how."""
KEPT_ANSWERS = 1024


KEPT_BYTES = 16 * 2**20
TOKEN_BYTES = 40
"""Of an id in a tuple."""


@dataclass(slots=True)
class Memory:
    """Answers by what was asked, the least used forgotten first. Whoever shares one sees, by the time an answer takes,
    that a question was asked before: a memory is for one owner (`node.serving`).
    """

    size: int = KEPT_ANSWERS
    most_bytes: int = KEPT_BYTES
    _answers: OrderedDict[bytes, tuple[Chunk, int]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def find(self, request: Request) -> Chunk | None:
        """The whole answer in one chunk."""
        key = remembered_by(request)
        if key is None or key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key][0]

    def keep(self, request: Request, chunks: Sequence[Chunk]) -> None:
        if (key := remembered_by(request)) is None:
            return
        whole = _whole(chunks)
        self._drop(key)
        self._answers[key] = whole, (size := 1024 + 4 * len(whole.text) + TOKEN_BYTES * len(whole.token_ids))
        self._bytes += size
        while len(self._answers) > self.size or self._bytes > self.most_bytes:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: bytes) -> None:
        self._bytes -= self._answers.pop(key, (Chunk(), 0))[1]


def _whole(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk in the place of one for each token."""
    reason = next((chunk.finish_reason for chunk in reversed(chunks) if chunk.finish_reason), None)
    tokens = tuple(token for chunk in chunks for token in chunk.token_ids)
    return Chunk(text="".join(chunk.text for chunk in chunks), token_ids=tokens, finish_reason=reason)


def remembered_by(request: Request) -> bytes | None:
    """A hash of everything that decides the answer; None for requests whose answer may differ each time."""
    if request.sampling.temperature > 0 and request.sampling.seed is None:
        return None
    same = replace(request, request_id="", priority=0, deadline=None, receipt=False, audit="")
    return hashlib.sha256(encode(same)).digest()


def cascade(members: Sequence[Member], confidence: float, memory: Memory | None = None) -> Generate:
    """A `Generate` over members, cheapest first; the last one's answer is taken whatever its confidence."""
    if not members:
        raise ValueError("expected at least one member")

    async def generate(request: Request) -> AsyncIterator[Chunk]:
        _check(request)
        known = memory.find(request) if memory is not None else None
        if known is not None:
            yield known
            yield Chunk(usage=Usage(providers=("remembered",)))
            return
        begun, spent = asyncio.get_running_loop().time(), Spent()
        for number, member in enumerate(members):
            is_last = number == len(members) - 1
            try:
                chunks, usage, sure = await _attempt(member, request, number)
            except ShoalError:
                if is_last:
                    raise
                yield Chunk(progress=f"{member.name} failed, {members[number + 1].name} is asked")
                continue
            spent.add(usage)
            if is_last or sure >= confidence:
                break
            yield Chunk(progress=f"{member.name} is not sure ({sure:.2f} a token), {members[number + 1].name} is asked")
        if memory is not None:
            memory.keep(request, chunks)
        for chunk in chunks:
            yield chunk
        yield Chunk(usage=spent.total(None, asyncio.get_running_loop().time() - begun))

    return generate


async def _attempt(member: Member, request: Request, number: int) -> tuple[list[Chunk], Usage, float]:
    """A member's whole answer without its log-probabilities, its usage, and the mean of those log-probabilities."""
    own = member.ask(replace(request, request_id=f"{request.request_id}-c{number}"))
    asked = replace(own, sampling=replace(own.sampling, logprobs=0))
    chunks: list[Chunk] = []
    logprobs: list[TokenLogprob] = []
    usage = Usage()
    async with closing(member.generate(asked)) as stream:
        async for chunk in stream:
            logprobs += chunk.logprobs
            usage = chunk.usage or usage
            if chunk.text or chunk.token_ids or chunk.finish_reason:
                chunks.append(replace(chunk, logprobs=(), usage=None))
    return chunks, usage, mean_logprob(logprobs)


def mean_logprob(logprobs: Sequence[TokenLogprob]) -> float:
    """Nats per token; an answer that says nothing is sure of nothing."""
    return sum(item.logprob for item in logprobs) / len(logprobs) if logprobs else float("-inf")


def _check(request: Request) -> None:
    if request.n != 1 or request.resume is not None or request.tools or request.sampling.logprobs is not None:
        name = "n" if request.n != 1 else "tools" if request.tools else "logprobs"
        raise InvalidRequest(f"{name}: a cascade gives one whole text; ask one of its members", name)
