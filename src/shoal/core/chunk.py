"""What is answered: a stream of `Chunk`s, whose last one for each choice carries a finish reason.

Rules that stay true for every stream:
- concatenating `text` over the chunks of one choice gives exactly its answer; no chunk holds half a character;
- each choice gets exactly one chunk with a `finish_reason`, after which no chunk of it follows;
- the very last chunk of the stream carries `usage`; a stream that fails raises instead, once.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.ranking import Ranking
from shoal.core.receipt import Evidence, Opening, Receipt
from shoal.core.usage import FinishReason, Measured, Usage

__all__ = ["Chunk", "FinishReason", "Measured", "Receipt", "TokenLogprob", "ToolCallDelta", "Usage"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability (nats, before temperature and truncation) of the token at one position.

    `bytes` are the token's own, so that a character split over tokens can be put together by the reader.
    `top` lists the most likely tokens there, most likely first.
    """

    token_id: int
    bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Part of a tool call. The first delta of `index` carries `id` and `name`; `arguments` concatenate to JSON."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of choice `index`; see the rules above.

    receipt, opening  of the whole answer, on the stream's last chunk, where a receipt was asked for.
    evidence  of this choice, on its last chunk, inside a node that will sign; provider: who made this chunk, filled by
              whoever asked them while a receipt is being made. Neither is taken from a peer's word.
    progress  what those who make the answer are doing, for people; no part of it. ranking: how it was chosen among
              several, on the stream's last chunk.
    """

    index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    receipt: Receipt | None = None
    opening: Opening | None = None
    evidence: Evidence | None = None
    provider: str = ""
    progress: str = ""
    ranking: Ranking | None = None
