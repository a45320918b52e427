"""What somebody else's answer may be: no more than was asked for, and nothing that was not. Pure.

Rules that stay true in this file:
- what passes is bounded by the request, whatever the other side sends and however long;
- log-probabilities and tool calls pass only where they were asked for, numbers are finite and within reason;
- usage is never believed beyond what could be true; a receipt nobody asked for is taken out.

What this does not protect against: text that is wrong, or was not made by the model that was asked for.
"""

from __future__ import annotations

import math
from dataclasses import replace

from shoal.core.chunk import Chunk, Measured, TokenLogprob, ToolCallDelta, Usage
from shoal.core.errors import PeerFault
from shoal.core.request import Request
from shoal.core.text import is_plain

MOST_TOKENS = 2**20
"""Of one choice where the request names no limit."""
CHARS_PER_TOKEN = 512
MOST_CHARS = 32 * 2**20
SPARE = 2**16
MAX_TOKEN_ID = 2**31 - 1
MAX_CALLS = 128
MAX_NAME = 256
MAX_COUNT = 2**40
MAX_SECONDS = 1e7
MAX_READING = 1e12
MAX_SOURCE = 160
THEIRS = "said by the peer: "
"""In front of the source of every reading that somebody else took."""


def most_tokens(request: Request) -> int:
    """Tokens one choice may have."""
    limit = request.sampling.max_tokens
    return MOST_TOKENS if limit is None else limit


def most_chars(request: Request) -> int:
    """Characters one choice may have, tool calls and the echoed prompt included."""
    echo = 0
    if request.echo:
        echo = len(request.prompt) * (1 if isinstance(request.prompt, str) else CHARS_PER_TOKEN)
    return min(MOST_CHARS, most_tokens(request) * CHARS_PER_TOKEN) + echo + SPARE


def num_chars(chunk: Chunk) -> int:
    return len(chunk.text) + sum(len(call.arguments) for call in chunk.tool_calls)


def believed(chunk: Chunk, request: Request) -> Chunk:
    """The chunk as far as it may be believed; PeerFault for one that answers another request than this."""
    if not all(0 <= token <= MAX_TOKEN_ID for token in chunk.token_ids):
        raise PeerFault("expected token ids of 0 to 2^31 - 1, found others")
    asked = request.sampling.logprobs
    if chunk.logprobs and (asked is None or not all(_is_sound(item, asked) for item in chunk.logprobs)):
        raise PeerFault("expected the log-probabilities that were asked for, found others")
    if chunk.tool_calls and not (request.tools and all(map(_is_call, chunk.tool_calls))):
        raise PeerFault("expected no call of a tool that was not offered, found one")
    if chunk.progress or chunk.ranking is not None:  # words of a round that this node did not hold
        chunk = replace(chunk, progress="", ranking=None)
    if chunk.usage is None and chunk.receipt is None:
        return chunk
    usage = None if chunk.usage is None else believed_usage(chunk.usage)
    if not request.receipt:
        return replace(chunk, usage=usage, receipt=None, opening=None)
    return replace(chunk, usage=usage)


def believed_usage(usage: Usage) -> Usage:
    """Counts within reason, times and readings that could be; what could not be is as if it had not been said."""
    prompt = _count(usage.prompt_tokens)
    return replace(
        usage,
        prompt_tokens=prompt,
        completion_tokens=_count(usage.completion_tokens),
        cached_tokens=min(prompt, _count(usage.cached_tokens)),
        queue_s=_seconds(usage.queue_s),
        ttft_s=_seconds(usage.ttft_s),
        duration_s=_seconds(usage.duration_s),
        energy_j=_reading(usage.energy_j),
        water_l=_reading(usage.water_l),
        carbon_g=_reading(usage.carbon_g),
        cost_usd=_reading(usage.cost_usd),
        providers=(),
    )


def _is_sound(item: TokenLogprob, asked: int) -> bool:
    flat = (item, *item.top)
    is_bounded = all(math.isfinite(one.logprob) and len(one.bytes) <= CHARS_PER_TOKEN for one in flat)
    return is_bounded and len(item.top) <= asked + 1 and not any(one.top for one in item.top)


def _is_call(call: ToolCallDelta) -> bool:
    names = [name for name in (call.id, call.name) if name is not None]
    return 0 <= call.index < MAX_CALLS and all(len(name) <= MAX_NAME and is_plain(name) for name in names)


def _count(count: int) -> int:
    return max(0, min(MAX_COUNT, count))


def _seconds(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0 <= seconds <= MAX_SECONDS else None


def _reading(reading: Measured | None) -> Measured | None:
    if reading is None:
        return None
    values = (reading.value, reading.uncertainty or 0.0)
    is_sound = all(0 <= value <= MAX_READING for value in values)
    if not is_sound or len(reading.source) > MAX_SOURCE or not is_plain(reading.source):
        return None
    return replace(reading, source=f"{THEIRS}{reading.source.removeprefix(THEIRS)}")
