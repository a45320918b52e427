"""/v1/completions: request, answer. A chunk of the stream has the answer's shape with finish_reason null."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shoal.server.wire.base import Answer, TokenIds
from shoal.server.wire.chat import StreamOptions
from shoal.server.wire.logprobs import CompletionLogprobs
from shoal.server.wire.ranking import RankingAnswer
from shoal.server.wire.receipts import ReceiptAnswer
from shoal.server.wire.sampling import SamplingFields
from shoal.server.wire.usage import ChatUsage

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint only."""

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=2048)]
ManyTokenIds = Annotated[list[TokenIds], Field(fail_fast=True, min_length=1, max_length=2048)]
Prompts = Text | Texts | TokenIds | ManyTokenIds


class CompletionRequest(SamplingFields):
    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    best_of: Literal[1] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream_options: StreamOptions | None = None


def prompts_of(prompt: Prompts) -> list[str | tuple[int, ...]]:
    """One text or one list of token ids for each prompt."""
    if isinstance(prompt, str):
        return [prompt]
    if tokens := tuple(item for item in prompt if isinstance(item, int)):
        return [tokens]
    return [tuple(item) if isinstance(item, list) else item for item in prompt if not isinstance(item, int)]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class Completion(Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: ChatUsage | None
    system_fingerprint: str
    receipt: ReceiptAnswer | None = None
    ranking: RankingAnswer | None = None
