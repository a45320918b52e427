"""/v1/responses bodies become conversations: items in, `core.request.Message`s out."""

from __future__ import annotations

import json
from dataclasses import replace

from shoal.core.errors import InvalidRequest
from shoal.core.request import Constraint, Message, ToolCall
from shoal.server.wire.responses import (
    CallItem,
    CallOutputItem,
    FlatSchemaFormat,
    Item,
    MessageItem,
    Part,
    ResponseRequest,
)
from shoal.server.wire.sampling import ANY_OBJECT


def conversation(items: str | list[Item]) -> tuple[Message, ...]:
    """Calls in a row become one assistant message, after the text they came with."""
    if isinstance(items, str):
        return (Message("user", items),)
    messages: list[Message] = []
    for item in items:
        match item:
            case MessageItem():
                messages.append(Message(item.role, _text(item.content)))
            case CallItem():
                _add_call(messages, ToolCall(item.call_id, item.name, item.arguments))
            case CallOutputItem():
                messages.append(Message("tool", _text(item.output), tool_call_id=item.call_id))
    return tuple(messages)


def _add_call(messages: list[Message], call: ToolCall) -> None:
    if messages and messages[-1].role == "assistant":
        last = messages.pop()
        messages.append(Message("assistant", last.content, tool_calls=(*last.tool_calls, call)))
    else:
        messages.append(Message("assistant", tool_calls=(call,)))


def _text(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def format_of(body: ResponseRequest) -> Constraint | None:
    asked = body.text.format if body.text else None
    if isinstance(asked, FlatSchemaFormat):
        return Constraint("json_schema", json.dumps(asked.schema_), "text.format")
    is_any = asked is not None and asked.type == "json_object"
    return replace(ANY_OBJECT, param="text.format") if is_any else None


def logprobs_of(body: ResponseRequest) -> int | None:
    if body.top_logprobs and not body.include:
        raise InvalidRequest('top_logprobs needs include: ["message.output_text.logprobs"]', "top_logprobs")
    return (body.top_logprobs or 0) if body.include else None
