"""What every generating endpoint does between a parsed body and its core Requests."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request as HttpRequest

from shoal import __version__
from shoal.core.errors import InvalidRequest
from shoal.core.request import Message
from shoal.server.context import Context, Record, record_of
from shoal.server.models import Target
from shoal.server.wire.chat import StreamOptions
from shoal.server.wire.sampling import SamplingFields

FINGERPRINT = f"shoal-{__version__}"
CHARS_PER_TOKEN = 4
"""What a token id counts towards the limit on prompts."""


def note(request: HttpRequest, body: SamplingFields, target: Target) -> Record:
    """Writes into the log's record what the body says about itself."""
    record = record_of(request)
    record.model, record.user, record.metadata = target.card.id, body.user, body.metadata
    return record


def deadline(context: Context) -> float | None:
    limit = context.config.request_timeout_s
    return None if limit is None else context.clock.monotonic() + limit


def check_size(context: Context, prompts: Sequence[str | tuple[int, ...] | tuple[Message, ...]], param: str) -> None:
    size, limit = sum(_size(prompt) for prompt in prompts), context.config.max_prompt_chars
    if size > limit:
        raise InvalidRequest(f"the prompt has about {size} characters; the limit is {limit}", param, "string_too_long")


def _size(prompt: str | tuple[int, ...] | tuple[Message, ...]) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    return sum(CHARS_PER_TOKEN if isinstance(item, int) else _message_size(item) for item in prompt)


def _message_size(message: Message) -> int:
    return len(message.content) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)


def check_choices(context: Context, num_choices: int, param: str) -> None:
    if num_choices > context.config.max_choices:
        limit = context.config.max_choices
        raise InvalidRequest(f"{num_choices} answers asked for in one request; the limit is {limit}", param)


def include_usage(stream: bool | None, options: StreamOptions | None) -> bool:
    if options is not None and not stream:
        raise InvalidRequest("stream_options needs stream to be true", "stream_options")
    return bool(options and options.include_usage)
