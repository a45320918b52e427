"""Which provider is best for a request: the estimated time to the end of its answer, and its price in seconds.

    cost = RTT + queue + prompt that it has not cached / prefill speed + answer / decode speed + price * patience

Estimates are coarse on purpose: they order providers, they promise nothing. Where a speed was never measured a guess
stands in that is on the slow side of a laptop, so that an unknown provider is tried only when known ones are busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shoal.core.request import Message, Request
from shoal.fleet.provider import Load, Provider

GUESS = Load(prefill_tps=200.0, stream_tps=20.0, total_tps=40.0)
CHARS_PER_TOKEN = 4.0
USUAL_ANSWER = 256
"""Tokens expected where the request names no limit."""
SECONDS_PER_USD = 3600.0
"""How long the caller would rather wait than pay a dollar: the price of an hour."""


@dataclass(frozen=True, slots=True)
class Bid:
    provider: Provider
    cost_s: float
    why: str


def rank(request: Request, providers: Sequence[Provider], cached: Callable[[str], float]) -> list[Bid]:
    """Providers that serve the request, best first, the lost ones last; equal ones by name.

    cached  provider's name -> share of the prompt, 0 to 1, that it probably has in its prefix cache.
    """
    bids = [bid(request, provider, cached(provider.name)) for provider in providers if provider.serves(request)]
    return sorted(bids, key=lambda item: (item.provider.is_lost, item.cost_s, item.provider.name))


def bid(request: Request, provider: Provider, cached: float) -> Bid:
    load = provider.load
    prompt, answer = prompt_tokens(request), answer_tokens(request)
    prefill = prompt * (1.0 - cached) / (load.prefill_tps or GUESS.prefill_tps or 1.0)
    total_tps = load.total_tps or GUESS.total_tps or 1.0
    stream_tps = min(load.stream_tps or GUESS.stream_tps or 1.0, total_tps / (min(load.running, load.seats) + 1))
    decode = answer / stream_tps
    ahead = load.waiting + (1 if load.running >= load.seats else 0)
    queue = ahead * answer / total_tps
    price = (prompt + answer) * provider.price_usd_per_mtok * 1e-6 * SECONDS_PER_USD
    parts = (("rtt", provider.rtt_s), ("queue", queue), ("prefill", prefill), ("decode", decode), ("price", price))
    why = " + ".join(f"{name} {value:.2f}" for name, value in parts if value >= 0.005)
    return Bid(provider, sum(value for _, value in parts), f"{why or '0'} s, {cached:.0%} of the prompt cached")


def prompt_tokens(request: Request) -> float:
    """A guess from the prompt's length; exact for token ids."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return len(prompt) / CHARS_PER_TOKEN
    return sum(len(item.content) / CHARS_PER_TOKEN + 4 if isinstance(item, Message) else 1 for item in prompt)


def answer_tokens(request: Request) -> float:
    limit = request.sampling.max_tokens
    return request.n * float(USUAL_ANSWER if limit is None else min(limit, USUAL_ANSWER * 4))
