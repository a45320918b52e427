"""Log-probabilities in the two shapes of the API: chat's list of objects, completions' parallel lists."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.core.chunk import TokenLogprob
from shoal.server.wire.base import Answer

FLOOR = -9999.0
"""What OpenAI writes for a probability of zero: JSON has no infinity."""


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    content: list[ChatLogprob] | None
    refusal: None = None


class CompletionLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def chat_logprobs(entries: Sequence[TokenLogprob]) -> list[ChatLogprob]:
    return [
        ChatLogprob(**_named(entry), top_logprobs=[TopLogprob(**_named(top)) for top in entry.top]) for entry in entries
    ]


def _named(entry: TokenLogprob) -> dict[str, Any]:
    token = entry.bytes.decode(errors="backslashreplace")
    return {"token": token, "logprob": _finite(entry.logprob), "bytes": list(entry.bytes)}


def _finite(logprob: float) -> float:
    return float(logprob) if math.isfinite(logprob) else FLOOR


@dataclass(slots=True)
class Offsets:
    """Where in the text each token begins: characters completed by the tokens before it."""

    num_chars: int = 0
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def advance(self, token: bytes) -> int:
        start = self.num_chars
        self.num_chars += len(self.decoder.decode(token))
        return start


def completion_logprobs(entries: Sequence[TokenLogprob], offsets: Offsets) -> CompletionLogprobs:
    """The first token of an echoed prompt has no probability: an engine says so with NaN, the API with null."""
    return CompletionLogprobs(
        tokens=[_spelled(entry.bytes) for entry in entries],
        token_logprobs=[None if math.isnan(entry.logprob) else _finite(entry.logprob) for entry in entries],
        top_logprobs=[{_spelled(top.bytes): _finite(top.logprob) for top in entry.top} or None for entry in entries],
        text_offset=[offsets.advance(entry.bytes) for entry in entries],
    )


def _spelled(token: bytes) -> str:
    """A token that is only part of a character is spelled out, or several would share one key."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
