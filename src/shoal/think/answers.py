"""Every member's answer to one request, gathered at once: what came, what did not and why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from shoal.core.chunk import Chunk
from shoal.core.errors import ShoalError
from shoal.core.request import Message, Request
from shoal.core.seams import Generate, closing
from shoal.core.usage import FinishReason, Usage
from shoal.think.judging import Judge


@dataclass(frozen=True, slots=True)
class Member:
    """One that answers and judges.

    ask    the swarm's request -> this member's own: its model, adapter, temperature, seed.
    judge  how it judges, given its own request; None: it only answers.
    """

    name: str
    generate: Generate
    ask: Callable[[Request], Request]
    judge: Callable[[Request], Judge] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What member number `member` said; logprobs: of its tokens, in nats, where they were asked for."""

    member: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """Member number `member` has no answer; why, in words, and the error where there was one."""

    member: int
    why: str
    error: ShoalError | None = None


async def gather(members: Sequence[Member], request: Request, wait_s: float | None) -> AsyncIterator[Answer | Missing]:
    """One result for each member, as they come; whoever is not done after `wait_s` is cancelled and missing."""
    tasks = {asyncio.ensure_future(answer(member, number, request)): number for number, member in enumerate(members)}
    loop = asyncio.get_running_loop()
    end = None if wait_s is None else loop.time() + wait_s
    waiting = set(tasks)
    try:
        while waiting:
            left = None if end is None else max(0.0, end - loop.time())
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=tasks.__getitem__):
                yield task.result()
            if not done:
                break
        for task in sorted(waiting, key=tasks.__getitem__):
            yield Missing(tasks[task], f"no answer after {wait_s:g} s")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def answer(member: Member, number: int, request: Request) -> Answer | Missing:
    """The whole answer of one member; what goes wrong with it is its own."""
    own = replace(member.ask(request), request_id=f"{request.request_id}-m{number}")
    texts: list[str] = []
    tokens: list[int] = []
    logprobs: list[float] = []
    last = Chunk()
    reason: FinishReason | None = None
    try:
        async with closing(member.generate(own)) as chunks:
            async for last in chunks:
                texts.append(last.text)
                tokens += last.token_ids
                logprobs += [item.logprob for item in last.logprobs]
                reason = last.finish_reason or reason
    except ShoalError as error:
        return Missing(number, str(error), error)
    if reason is None or last.usage is None:
        return Missing(number, "its stream ended without an end")
    return Answer(number, "".join(texts), tuple(tokens), reason, last.usage, tuple(logprobs))


def problem(request: Request) -> str:
    """What was asked, as judges read it: a question alone as it stands, a conversation as lines."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], Message):
        return str(prompt[0].content)
    return "\n".join(f"{part.role}: {part.content}" for part in prompt if isinstance(part, Message))
