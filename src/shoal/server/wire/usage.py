"""What an answer cost, in the two spellings of the API. Readings that were not taken are absent, never zero."""

from __future__ import annotations

from dataclasses import fields

from shoal.core.chunk import Measured, Usage
from shoal.server.wire.base import Answer


class Reading(Answer):
    value: float
    source: str
    uncertainty: float | None = None


class Cost(Answer):
    """Shoal's own part: seconds in the queue, to the first token and in all; energy, water, carbon, money; and who
    computed it, in order: "local", a peer's id, "upstream:NAME"."""

    queue_s: float
    ttft_s: float
    duration_s: float
    energy_j: Reading
    water_l: Reading
    carbon_g: Reading
    cost_usd: Reading
    providers: list[str]


class PromptDetails(Answer):
    cached_tokens: int


class ChatUsage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    shoal: Cost | None = None


class InputDetails(Answer):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Answer):
    reasoning_tokens: int


class ResponsesUsage(Answer):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    shoal: Cost | None = None


def chat_usage(usage: Usage) -> ChatUsage:
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
        **_cost(usage),
    )


def responses_usage(usage: Usage) -> ResponsesUsage:
    return ResponsesUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens, cache_write_tokens=0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=0),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        **_cost(usage),
    )


def _cost(usage: Usage) -> dict[str, Cost]:
    known = {name: _plain(value) for name in Cost.model_fields if (value := getattr(usage, name)) not in (None, ())}
    return {"shoal": Cost.model_construct(set(known), **known)} if known else {}


def _plain(value: float | Measured | tuple[str, ...]) -> float | Reading | list[str]:
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, Measured):
        return value
    return Reading(**{item.name: getattr(value, item.name) for item in fields(value)})
