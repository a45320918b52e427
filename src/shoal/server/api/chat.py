"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp

from shoal.core.chunk import Chunk, FinishReason, TokenLogprob, Usage
from shoal.core.request import Request
from shoal.server import parse, sse
from shoal.server.api.receipts import told
from shoal.server.api.reply import error_event, json_event, json_response
from shoal.server.api.requests import FINGERPRINT, check_choices, check_size, deadline, include_usage, note
from shoal.server.cancel import until_gone
from shoal.server.context import Context, fresh_id
from shoal.server.generation import run
from shoal.server.models import Target, resolve_for
from shoal.server.wire.chat import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatRequest,
    CompleteToolCall,
    FunctionDelta,
    constraint_of,
    logprobs_of,
    max_tokens_of,
)
from shoal.server.wire.logprobs import ChatLogprobs, chat_logprobs
from shoal.server.wire.messages import to_messages
from shoal.server.wire.tools import check_exclusive, to_choice, to_tools
from shoal.server.wire.usage import chat_usage

_SILENT: dict[str, Any] = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
"""A choice that says nothing."""


async def chat(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, ChatRequest, context.config)
    target = resolve_for(context, body.model, "chat")
    request = to_request(context, body, target)
    wants_usage = include_usage(body.stream, body.stream_options)
    chunks = run(context, note(http, body, target), [request])
    head = {"id": request.request_id, "created": int(context.clock.wall()), "model": target.card.id}
    if body.stream:
        events = stream(context, chunks, head, request, wants_usage)
        return sse.EventStream(events, error_event, context.config.keepalive_s)
    return await until_gone(http.receive, whole(context, chunks, head, request))


def to_request(context: Context, body: ChatRequest, target: Target) -> Request:
    """The core Request of a body. InvalidRequest names the field."""
    messages, tools = to_messages(body.messages), to_tools([tool.function for tool in body.tools or ()])
    choice = to_choice(body.tool_choice, body.parallel_tool_calls, tools)
    constraint = body.constraint(constraint_of(body.response_format))
    check_exclusive(choice, constraint)
    check_size(context, [messages], "messages")
    check_choices(context, body.n or 1, "n")
    return Request(
        request_id=fresh_id("chatcmpl-"),
        model=target.model,
        prompt=messages,
        sampling=body.sampling(max_tokens_of(body), logprobs_of(body)),
        n=body.n or 1,
        tools=tools,
        tool_choice=choice,
        constraint=constraint,
        adapter=target.adapter,
        priority=body.priority or 0,
        deadline=deadline(context),
        receipt=bool(body.receipt),
        audit=body.audit or "",
        approximation=body.approximation(),
    )


async def stream(
    context: Context, chunks: AsyncGenerator[Chunk], head: dict[str, Any], request: Request, wants_usage: bool
) -> AsyncGenerator[bytes]:
    """Each choice begins with its role; `usage` is null in every chunk but the last, where it was asked for.

    The last chunk also carries the receipt. It has no choice only where usage was asked for, as OpenAI has it: many
    clients read `choices[0]` of every chunk, and what comes on its own behalf (progress, ranking) must not break them.
    """
    head = {"object": "chat.completion.chunk", "system_fingerprint": FINGERPRINT} | head
    more = {"usage": None} if wants_usage else {}
    seen: set[int] = set()
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.progress:
                yield json_event({**head, "choices": [_SILENT], **more, "progress": chunk.progress})
                continue
            if chunk.index not in seen:
                seen.add(chunk.index)
                role = {"role": "assistant", "content": "", "refusal": None}
                first = {"index": chunk.index, "delta": role, "logprobs": None, "finish_reason": None}
                yield json_event({**head, "choices": [first], **more})
            for choice in chunk_choices(chunk, request.sampling.logprobs is not None):
                yield json_event({**head, "choices": [choice], **more})
            if (last := last_event(context, chunk, wants_usage)) is not None:
                yield json_event({**head, "choices": [] if wants_usage else [_SILENT], **last})
    yield sse.DONE


def last_event(context: Context, chunk: Chunk, wants_usage: bool) -> dict[str, Any] | None:
    """What a stream ends with besides its choices, if anything."""
    if chunk.usage is None:
        return None
    usage = {"usage": chat_usage(chunk.usage).plain()} if wants_usage else {}
    return {**usage, **told(context, chunk)} or None


def chunk_choices(chunk: Chunk, has_logprobs: bool) -> list[dict[str, Any]]:
    """What a chunk says, then, on its own as OpenAI does it, how the choice ended."""
    said: list[dict[str, Any]] = []
    if chunk.text or chunk.tool_calls or (has_logprobs and chunk.logprobs):
        logprobs = {"content": [e.plain() for e in chat_logprobs(chunk.logprobs)], "refusal": None}
        said.append(
            {"index": chunk.index, "delta": _delta(chunk), "logprobs": logprobs if has_logprobs else None,
             "finish_reason": None}
        )  # fmt: skip
    if chunk.finish_reason is not None:
        said.append({"index": chunk.index, "delta": {}, "logprobs": None, "finish_reason": chunk.finish_reason})
    return said


def _delta(chunk: Chunk) -> dict[str, Any]:
    delta: dict[str, Any] = {"content": chunk.text} if chunk.text or not chunk.tool_calls else {}
    if chunk.tool_calls:
        delta["tool_calls"] = [
            {
                "index": call.index,
                **({"id": call.id, "type": "function"} if call.id is not None else {}),
                "function": {**({"name": call.name} if call.name is not None else {}), "arguments": call.arguments},
            }
            for call in chunk.tool_calls
        ]
    return delta


@dataclass(slots=True)
class Gathered:
    """One choice, put together."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, CompleteToolCall] = field(default_factory=dict)
    finish_reason: FinishReason = "stop"

    def add(self, chunk: Chunk) -> None:
        self.texts.append(chunk.text)
        self.logprobs += chunk.logprobs
        self.finish_reason = chunk.finish_reason or self.finish_reason
        for part in chunk.tool_calls:
            if part.index not in self.calls:
                function = FunctionDelta(name=part.name or "", arguments="")
                self.calls[part.index] = CompleteToolCall(id=part.id or "", type="function", function=function)
            self.calls[part.index].function.arguments += part.arguments


async def gather(chunks: AsyncGenerator[Chunk], n: int) -> tuple[list[Gathered], Chunk]:
    """The choices, and the chunk that ended the answer."""
    choices, last = [Gathered() for _ in range(n)], Chunk(usage=Usage())
    async with aclosing(chunks):
        async for chunk in chunks:
            choices[chunk.index].add(chunk)
            last = chunk if chunk.usage is not None else last
    return choices, last


async def whole(
    context: Context, chunks: AsyncGenerator[Chunk], head: dict[str, Any], request: Request
) -> Response:  # fmt: skip
    choices, last = await gather(chunks, request.n)
    has_logprobs = request.sampling.logprobs is not None
    answer = ChatCompletion(
        object="chat.completion",
        choices=[_choice(index, choice, has_logprobs) for index, choice in enumerate(choices)],
        usage=chat_usage(last.usage or Usage()),
        system_fingerprint=FINGERPRINT,
        **head,
        **told(context, last),
    )
    return json_response(answer)


def _choice(index: int, choice: Gathered, has_logprobs: bool) -> ChatChoice:
    text, calls = "".join(choice.texts), list(choice.calls.values())
    called = {"tool_calls": calls} if calls else {}
    message = AssistantMessage(role="assistant", content=None if calls and not text else text, refusal=None, **called)
    logprobs = ChatLogprobs(content=chat_logprobs(choice.logprobs), refusal=None) if has_logprobs else None
    return ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=choice.finish_reason)
