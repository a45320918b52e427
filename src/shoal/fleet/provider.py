"""What can answer: the local engine, a peer, an upstream server. Plain data, made anew for each decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from shoal.core.request import Request
from shoal.core.seams import Generate
from shoal.core.service import ModelCard

Kind = Literal["local", "peer", "upstream"]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a provider is and how fast; speeds in tokens/s, None where nobody measured.

    seats        requests it works on at once.
    prefill_tps  prompt tokens.
    stream_tps   one answer alone.
    total_tps    all answers together when busy.
    """

    running: int = 0
    waiting: int = 0
    seats: int = 1
    prefill_tps: float | None = None
    stream_tps: float | None = None
    total_tps: float | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """`name` is unique: "local", a peer id's text, or "upstream:NAME". Loaded adapters have cards too.

    resumes  how it can go on with an answer that another began: from token ids, from text alone, or not.
    price_usd_per_mtok  for a million tokens, prompt and answer alike; 0 is free.
    is_lost  it was connected and is not any more: asked when nobody else is left.
    """

    name: str
    kind: Kind
    generate: Generate
    cards: tuple[ModelCard, ...]
    load: Load = Load()
    rtt_s: float = 0.0
    price_usd_per_mtok: float = 0.0
    resumes: Literal["tokens", "text", "no"] = "tokens"
    is_lost: bool = False

    @property
    def models(self) -> frozenset[str]:
        return frozenset(card.id for card in self.cards)

    def serves(self, request: Request) -> bool:
        return request.model in self.models and (request.adapter is None or request.adapter in self.models)


Directory = Callable[[], Sequence[Provider]]
"""Everything that can answer now, a fresh snapshot."""
