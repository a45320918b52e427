"""What is answered: a stream of `Chunk`s, whose last one for each choice carries a finish reason.

Rules that stay true for every stream:
- concatenating `text` over the chunks of one choice gives exactly its answer; no chunk holds half a character;
- each choice gets exactly one chunk with a `finish_reason`, after which no chunk of it follows;
- the very last chunk of the stream carries `usage`; a stream that fails raises instead, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls"]


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
class Measured:
    """A quantity and where it came from ("rapl", "modelled", ...). Absent readings are None, never zero."""

    value: float
    source: str
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the whole request cost. Tokens are counts; times are seconds; costs are None where not measured.

    providers  who computed the answer, in order: "local", a peer's id, "upstream:NAME". Filled by whoever asked them,
               never taken from their word; empty where there was nobody to choose from.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queue_s: float | None = None
    ttft_s: float | None = None
    duration_s: float | None = None
    energy_j: Measured | None = None
    water_l: Measured | None = None
    carbon_g: Measured | None = None
    cost_usd: Measured | None = None
    providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """Who computed an answer and what they commit to. Filled by `trust`; here only the words.

    node             public key of the signer, raw bytes.
    model_hash       SHA-256 of the weights (and adapter) the answer came from.
    prompt_commitment, output_commitment  salted SHA-256 of the canonical request and of the answer's token ids.
    signature        over the canonical encoding of every other field.
    """

    node: bytes = b""
    model: str = ""
    model_hash: bytes = b""
    prompt_commitment: bytes = b""
    output_commitment: bytes = b""
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of choice `index`; see the rules above."""

    index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    receipt: Receipt | None = None
