"""/v1/responses: create, retrieve, delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from shoal.core.chunk import Chunk
from shoal.core.errors import InvalidRequest
from shoal.core.request import Message, Request
from shoal.server import parse, sse
from shoal.server.api.receipts import told
from shoal.server.api.reply import json_event, json_response, log_bug
from shoal.server.api.requests import check_size, deadline, note
from shoal.server.api.response_input import conversation, format_of, logprobs_of
from shoal.server.api.response_output import Event, ResponseMachine
from shoal.server.cancel import until_gone
from shoal.server.context import Context, fresh_id, record_of
from shoal.server.errors import body_of
from shoal.server.generation import run
from shoal.server.models import Target, resolve_for
from shoal.server.store import Stored
from shoal.server.wire.responses import Deleted, ResponseRequest
from shoal.server.wire.tools import check_exclusive, to_choice, to_tools


@dataclass(frozen=True, slots=True)
class _Turn:
    """One request for an answer: `history` is the conversation so far, without instructions."""

    body: ResponseRequest
    request: Request
    history: tuple[Message, ...]
    owner: bytes
    stores: bool


async def create(context: Context, http: HttpRequest) -> ASGIApp:
    body = await parse.read(http, ResponseRequest, context.config)
    target = resolve_for(context, body.model, "chat")
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream to be true", "stream_options")
    turn = _turn(context, body, target, record_of(http).owner)
    chunks = run(context, note(http, body, target), [turn.request])
    machine = ResponseMachine(_head(turn, target, int(context.clock.wall())))
    if body.stream:
        events = stream(context, chunks, machine, turn)
        return sse.EventStream(events, _failure(machine), context.config.keepalive_s)
    return await until_gone(http.receive, whole(context, chunks, machine, turn))


async def retrieve(context: Context, http: HttpRequest) -> ASGIApp:
    return JSONResponse(context.store.get(http.path_params["response_id"], record_of(http).owner).response)


async def delete(context: Context, http: HttpRequest) -> ASGIApp:
    response_id = http.path_params["response_id"]
    context.store.remove(response_id, record_of(http).owner)
    return json_response(Deleted(id=response_id, object="response", deleted=True))


async def stream(
    context: Context, chunks: AsyncGenerator[Chunk], machine: ResponseMachine, turn: _Turn
) -> AsyncGenerator[bytes]:
    """Nothing is sent before the first chunk: an error until then has its own status."""
    has_begun = False
    async with aclosing(chunks):
        async for chunk in chunks:
            if not has_begun:
                has_begun = True
                for event in machine.begin():
                    yield _named(event)
            machine.receipt |= told(context, chunk)
            for event in machine.take(chunk):
                yield _named(event)
    for event in machine.end():
        yield _named(event)
    _remember(context, machine, turn)


async def whole(
    context: Context, chunks: AsyncGenerator[Chunk], machine: ResponseMachine, turn: _Turn
) -> Response:  # fmt: skip
    async with aclosing(chunks):
        async for chunk in chunks:
            machine.receipt |= told(context, chunk)
            for _ in machine.take(chunk):
                pass
    for _ in machine.end():
        pass
    _remember(context, machine, turn)
    return JSONResponse(machine.response(machine.status))


def _named(event: Event) -> bytes:
    return json_event(event, event["type"])


def _failure(machine: ResponseMachine) -> Callable[[Exception], bytes]:
    def failed(error: Exception) -> bytes:
        log_bug(error)
        said = body_of(error)["error"]
        return _named(machine.fail(said["code"], said["message"]))

    return failed


def _remember(context: Context, machine: ResponseMachine, turn: _Turn) -> None:
    if turn.stores:
        response = machine.response(machine.status)
        context.store.put(response["id"], Stored(turn.owner, response, (*turn.history, machine.message())))


def _turn(context: Context, body: ResponseRequest, target: Target, owner: bytes) -> _Turn:
    """InvalidRequest names the field."""
    if body.store and not context.store.is_enabled:
        raise InvalidRequest("this server stores no responses; pass store: false", "store")
    before = context.store.previous(body.previous_response_id, owner).messages if body.previous_response_id else ()
    history = (*before, *conversation(body.input))
    instructions = (Message("system", body.instructions),) if body.instructions else ()
    stores = body.store is not False and context.store.is_enabled
    return _Turn(body, _to_request(context, body, target, (*instructions, *history)), history, owner, stores)


def _to_request(context: Context, body: ResponseRequest, target: Target, messages: tuple[Message, ...]) -> Request:
    tools = to_tools(body.tools or ())
    choice = to_choice(body.tool_choice, body.parallel_tool_calls, tools)
    constraint = body.constraint(format_of(body))
    check_exclusive(choice, constraint)
    check_size(context, [messages], "input")
    return Request(
        request_id=fresh_id("resp_"),
        model=target.model,
        prompt=messages,
        sampling=body.sampling(body.max_output_tokens, logprobs_of(body)),
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


def _head(turn: _Turn, target: Target, created_at: int) -> dict[str, Any]:
    body, choice = turn.body, turn.request.tool_choice
    text = body.text.model_dump(by_alias=True, exclude_none=True) if body.text else {}
    tools = [{"description": None, "parameters": {}, **tool.model_dump(exclude_none=True)} for tool in body.tools or ()]
    named = {"type": "function", "name": choice.name or ""}
    return {
        "id": turn.request.request_id,
        "object": "response",
        "created_at": created_at,
        "background": False,
        "error": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": target.card.id,
        "parallel_tool_calls": choice.parallel,
        "previous_response_id": body.previous_response_id,
        "reasoning": None,
        "service_tier": "default",
        "store": turn.stores,
        "temperature": turn.request.sampling.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": named if choice.mode == "named" else choice.mode if tools else "auto",
        "tools": [{"strict": True, **tool} for tool in tools],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": turn.request.sampling.top_p,
        "truncation": "disabled",
        "user": body.user,
    }
