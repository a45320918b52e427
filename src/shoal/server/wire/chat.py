"""/v1/chat/completions: request, answer and chunks."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from shoal.core.errors import InvalidRequest
from shoal.core.request import Constraint
from shoal.server.wire.base import Answer, Name, Wire
from shoal.server.wire.logprobs import ChatLogprobs
from shoal.server.wire.messages import Messages
from shoal.server.wire.ranking import RankingAnswer
from shoal.server.wire.receipts import ReceiptAnswer
from shoal.server.wire.sampling import ANY_OBJECT, SamplingFields
from shoal.server.wire.tools import ChatTool, Mode, NamedChoice
from shoal.server.wire.usage import ChatUsage

MaxTokens = Annotated[int, Field(ge=1, lt=2**31)]


class StreamOptions(Wire):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class NamedSchema(Wire):
    name: Name
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Wire):
    type: Literal["text"]


class JsonObjectFormat(Wire):
    type: Literal["json_object"]


class JsonSchemaFormat(Wire):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ChatRequest(SamplingFields):
    messages: Messages
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ChatTool], Field(fail_fast=True, max_length=128)] | None = None
    tool_choice: Mode | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    stream_options: StreamOptions | None = None
    store: Literal[False] | None = None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True, max_length=1)] | None = None
    verbosity: Literal["medium"] | None = None


def max_tokens_of(body: ChatRequest) -> int | None:
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise InvalidRequest("max_tokens and max_completion_tokens say different things", "max_tokens")
    return body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens


def logprobs_of(body: ChatRequest) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", "top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def constraint_of(asked: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> Constraint | None:
    match asked:
        case JsonObjectFormat():
            return ANY_OBJECT
        case JsonSchemaFormat():
            return Constraint("json_schema", json.dumps(asked.json_schema.schema_))
    return None


class FunctionDelta(Answer):
    name: str
    arguments: str


class ToolCallPart(Answer):
    """In a chunk `index` is set, and only the first one of a call has `id`, `type` and `name`."""

    index: int
    id: str
    type: Literal["function"]
    function: FunctionDelta


class CompleteToolCall(Answer):
    id: str
    type: Literal["function"]
    function: FunctionDelta


class AssistantMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[CompleteToolCall] = Field(default_factory=list)


class ChatChoice(Answer):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    system_fingerprint: str
    receipt: ReceiptAnswer | None = None
    ranking: RankingAnswer | None = None
