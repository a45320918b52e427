"""Conversations: chat messages become `core.request.Message`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shoal.core.errors import InvalidRequest
from shoal.core.request import Message, ToolCall
from shoal.server.wire.base import Wire


class TextPart(Wire):
    """The only kind of part: images and audio are refused by their `type`."""

    type: Literal["text"]
    text: str


class CalledFunction(Wire):
    name: str
    arguments: str


class PastToolCall(Wire):
    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Wire):
    """`refusal`, `audio`, `function_call` and `annotations` come back empty from clients that echo an answer."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[PastToolCall], Field(fail_fast=True, max_length=128)] | None = None
    tool_call_id: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[str], Field(max_length=0)] | None = None


Messages = Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=4096)]


def to_messages(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """InvalidRequest for a message that lacks what its role needs or carries what it cannot have."""
    return tuple(_to_message(message, f"messages[{position}]") for position, message in enumerate(messages))


def _to_message(message: ChatMessage, where: str) -> Message:
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidRequest("a tool message says which call it answers", f"{where}.tool_call_id")
    if message.role != "tool" and message.tool_call_id is not None:
        raise InvalidRequest("only tool messages answer a call", f"{where}.tool_call_id")
    if message.role != "assistant" and message.tool_calls:
        raise InvalidRequest("only assistant messages make calls", f"{where}.tool_calls")
    if message.content is None and not message.tool_calls:
        raise InvalidRequest(f"a message of role {message.role} needs content", f"{where}.content")
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    return Message(message.role, text_of(message.content), message.name, calls, message.tool_call_id)


def text_of(content: str | list[TextPart] | None) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content or ())
