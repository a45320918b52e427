"""/v1/responses: request and answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from shoal.server.wire.base import Answer, Name, Wire
from shoal.server.wire.chat import JsonObjectFormat, MaxTokens, TextFormat
from shoal.server.wire.logprobs import ChatLogprob
from shoal.server.wire.ranking import RankingAnswer
from shoal.server.wire.receipts import ReceiptAnswer
from shoal.server.wire.sampling import SamplingFields
from shoal.server.wire.tools import FlatChoice, FlatTool, Mode
from shoal.server.wire.usage import ResponsesUsage

Status = Literal["in_progress", "completed", "incomplete", "failed"]
ItemId = Annotated[str, Field(max_length=256)]


class Part(Wire):
    """Text in, or text that came out earlier; its annotations and logprobs are not read again."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = None


class MessageItem(Wire):
    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(fail_fast=True)]
    id: ItemId | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CallItem(Wire):
    type: Literal["function_call"]
    call_id: ItemId
    name: str
    arguments: str
    id: ItemId | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CallOutputItem(Wire):
    type: Literal["function_call_output"]
    call_id: ItemId
    output: str | Annotated[list[Part], Field(fail_fast=True)]
    id: ItemId | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


def _item_kind(item: Any) -> str:
    """An item without a type is a message; what is no object fails as one."""
    return str(item.get("type") or "message") if isinstance(item, dict) else "message"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")],
    Discriminator(_item_kind),
]


class FlatSchemaFormat(Wire):
    type: Literal["json_schema"]
    name: Name
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextConfig(Wire):
    format: Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ResponsesStreamOptions(Wire):
    include_obfuscation: Literal[False] | None = None


class ResponseRequest(SamplingFields):
    """`store` defaults to true, as OpenAI's does, where this server remembers answers at all."""

    input: str | Annotated[list[Item], Field(fail_fast=True, min_length=1, max_length=4096)]
    instructions: str | None = None
    max_output_tokens: MaxTokens | None = None
    previous_response_id: ItemId | None = None
    store: bool | None = None
    text: TextConfig | None = None
    tools: Annotated[list[FlatTool], Field(fail_fast=True, max_length=128)] | None = None
    tool_choice: Mode | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    include: Annotated[list[Literal["message.output_text.logprobs"]], Field(fail_fast=True, max_length=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream_options: ResponsesStreamOptions | None = None
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None


class OutputText(Answer):
    type: Literal["output_text"]
    text: str
    annotations: list[str]
    logprobs: list[ChatLogprob]


class OutputMessage(Answer):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Status
    content: list[OutputText]


class OutputCall(Answer):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Status


class FailedWith(Answer):
    code: str
    message: str


class Incomplete(Answer):
    reason: Literal["max_output_tokens"]


class ResponseObject(Answer):
    id: str
    object: Literal["response"]
    created_at: int
    status: Status
    background: Literal[False]
    error: FailedWith | None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, str]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponsesUsage | None
    user: str | None
    receipt: ReceiptAnswer | None = None
    ranking: RankingAnswer | None = None


class Deleted(Answer):
    id: str
    object: Literal["response"]
    deleted: Literal[True]
