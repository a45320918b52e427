"""POST /v1/completions: one or several prompts, as text or token ids."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp

from shoal.core.chunk import Chunk, Usage
from shoal.core.errors import InvalidRequest
from shoal.core.request import Request
from shoal.server import parse, sse
from shoal.server.api.chat import gather, last_event
from shoal.server.api.receipts import told
from shoal.server.api.reply import error_event, json_event, json_response
from shoal.server.api.requests import FINGERPRINT, check_choices, check_size, deadline, include_usage, note
from shoal.server.cancel import until_gone
from shoal.server.context import Context, fresh_id
from shoal.server.generation import run
from shoal.server.models import Target, resolve_for
from shoal.server.wire.completions import (
    DEFAULT_MAX_TOKENS,
    Completion,
    CompletionChoice,
    CompletionRequest,
    prompts_of,
)
from shoal.server.wire.logprobs import Offsets, completion_logprobs
from shoal.server.wire.usage import chat_usage


async def complete(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, CompletionRequest, context.config)
    target = resolve_for(context, body.model, "completion")
    requests = to_requests(context, body, target)
    wants_usage = include_usage(body.stream, body.stream_options)
    chunks = run(context, note(http, body, target), requests)
    head = {
        "id": requests[0].request_id if len(requests) == 1 else requests[0].request_id.rpartition("-")[0],
        "object": "text_completion",
        "created": int(context.clock.wall()),
        "model": target.card.id,
        "system_fingerprint": FINGERPRINT,
    }
    if body.stream:
        events = stream(context, chunks, head, requests, wants_usage)
        return sse.EventStream(events, error_event, context.config.keepalive_s)
    return await until_gone(http.receive, whole(context, chunks, head, requests))


def to_requests(context: Context, body: CompletionRequest, target: Target) -> list[Request]:
    """One core Request for each prompt. InvalidRequest names the field."""
    prompts, n, answer_id = prompts_of(body.prompt), body.n or 1, fresh_id("cmpl-")
    check_size(context, prompts, "prompt")
    check_choices(context, n * len(prompts), "n")
    if body.receipt and len(prompts) > 1:
        raise InvalidRequest("receipt: one prompt at a time; every receipt is of one request", "receipt")
    sampling = body.sampling(DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens, body.logprobs)
    constraint, ends_at, approximation = body.constraint(), deadline(context), body.approximation()
    return [
        Request(
            request_id=answer_id if len(prompts) == 1 else f"{answer_id}-{position}",
            model=target.model,
            prompt=prompt,
            sampling=sampling,
            n=n,
            constraint=constraint,
            adapter=target.adapter,
            echo=bool(body.echo),
            priority=body.priority or 0,
            deadline=ends_at,
            receipt=bool(body.receipt),
            audit=body.audit or "",
            approximation=approximation,
        )
        for position, prompt in enumerate(prompts)
    ]


async def stream(
    context: Context,
    chunks: AsyncGenerator[Chunk],
    head: dict[str, Any],
    requests: Sequence[Request],
    wants_usage: bool,
) -> AsyncGenerator[bytes]:
    more = {"usage": None} if wants_usage else {}
    offsets = [Offsets() for _ in range(len(requests) * requests[0].n)]
    has_logprobs = requests[0].sampling.logprobs is not None
    async with aclosing(chunks):
        async for chunk in chunks:
            logprobs = completion_logprobs(chunk.logprobs, offsets[chunk.index]).plain() if has_logprobs else None
            choice = {"index": chunk.index, "text": chunk.text, "logprobs": logprobs}
            yield json_event({**head, "choices": [{**choice, "finish_reason": chunk.finish_reason}], **more})
            if (last := last_event(context, chunk, wants_usage)) is not None:
                silent = {"index": 0, "text": "", "logprobs": None, "finish_reason": None}
                yield json_event({**head, "choices": [] if wants_usage else [silent], **last})
    yield sse.DONE


async def whole(
    context: Context, chunks: AsyncGenerator[Chunk], head: dict[str, Any], requests: Sequence[Request]
) -> Response:
    choices, last = await gather(chunks, len(requests) * requests[0].n)
    has_logprobs = requests[0].sampling.logprobs is not None
    answers = [
        CompletionChoice(
            index=index,
            text="".join(choice.texts),
            logprobs=completion_logprobs(choice.logprobs, Offsets()) if has_logprobs else None,
            finish_reason=choice.finish_reason,
        )
        for index, choice in enumerate(choices)
    ]
    usage = chat_usage(last.usage or Usage())
    return json_response(Completion(choices=answers, usage=usage, **head, **told(context, last)))
