"""The local engine for peers: handlers of "fleet.answer" and "fleet.models". Nothing is served without consent.

What this does not protect against: a peer that is served sees what any user sees, so it can copy the model's answers;
and the owner of the engine sees every prompt that peers send here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from shoal.core.chunk import Chunk, Usage
from shoal.core.clock import Clock
from shoal.core.decoding import compact, parse
from shoal.core.encoding import decode, encode
from shoal.core.errors import InvalidRequest, PeerFault, RemoteError
from shoal.core.request import Request
from shoal.core.seams import Generate
from shoal.core.service import ModelCard
from shoal.fleet.accounts import Accounts
from shoal.fleet.batches import batched
from shoal.fleet.provider import Load
from shoal.fleet.wire import METHOD, MODELS, TICK_S, read_request, write_chunks
from shoal.mesh.calls import Answering, CallStream, Incoming
from shoal.mesh.peer_id import PeerId

PRIORITY_RANGE = 50
"""How far a peer's own priorities move its requests against other peers'."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a peer says it serves: its cards, its price, how much at once and how fast (as `provider.Load`)."""

    cards: tuple[ModelCard, ...] = ()
    price_usd_per_mtok: float = 0.0
    seats: int = 1
    prefill_tps: float | None = None
    stream_tps: float | None = None
    total_tps: float | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """`generate` and `cards` are the local engine's, never the router's: a request travels one hop."""

    generate: Generate
    cards: Callable[[], Sequence[ModelCard]]
    accounts: Accounts
    is_member: Callable[[PeerId], bool]
    clock: Clock
    price_usd_per_mtok: float = 0.0
    load: Callable[[], Load] = Load

    def register(self, answering: Answering) -> None:
        answering.streaming(METHOD, self.answer)
        answering.unary(MODELS, self.models)

    async def answer(self, incoming: Incoming, call: CallStream) -> None:
        now = self.clock.monotonic()
        priority = self.accounts.admit(incoming.peer, self.is_member(incoming.peer), now)
        num_tokens = 0
        try:
            request = _served(await _only_message(call), incoming, priority, now)
            await call.send(b"")  # whoever asks knows at once that somebody is there
            async with aclosing(batched(self.generate(request), self.clock, TICK_S)) as batches:
                async for batch in batches:
                    num_tokens += sum(map(_tokens, batch))
                    await call.send(write_chunks(batch) if batch else b"")
            await call.end()
        finally:
            self.accounts.settle(incoming.peer, num_tokens, self.clock.monotonic())

    async def models(self, incoming: Incoming, body: memoryview) -> bytes:
        """Nothing, not even a name, for those who are not served."""
        is_served = self.accounts.is_served(incoming.peer, self.is_member(incoming.peer))
        return encode(compact(self.offer() if is_served else Offer()))

    def offer(self) -> Offer:
        load = self.load()
        seats = min(load.seats, self.accounts.limits.max_concurrent)
        return Offer(
            tuple(self.cards()),
            self.price_usd_per_mtok,
            seats,
            load.prefill_tps,
            load.stream_tps,
            load.total_tps,
        )


def read_offer(data: bytes | memoryview) -> Offer:
    """PeerFault for anything but an offer of at most 1,000 models."""
    try:
        offer = parse(Offer, decode(bytes(data)))
    except RemoteError as error:
        raise PeerFault(f"expected an offer, {error}") from error
    speeds = [speed for speed in (offer.prefill_tps, offer.stream_tps, offer.total_tps) if speed is not None]
    if len(offer.cards) > 1000 or not 0 <= offer.price_usd_per_mtok < 1e9:
        raise PeerFault("expected at most 1,000 models and a price that is not negative")
    if not 1 <= offer.seats <= 10_000 or not all(0 < speed < 1e9 for speed in speeds):
        raise PeerFault("expected 1 to 10,000 seats and speeds above 0")
    return offer


async def _only_message(call: CallStream) -> memoryview:
    async for message in call:
        return message
    raise InvalidRequest("expected a request, found an empty call")


def _served(message: memoryview, incoming: Incoming, priority: int, now: float) -> Request:
    request = read_request(message, now)
    own = max(-PRIORITY_RANGE, min(PRIORITY_RANGE, request.priority))
    deadlines = [time for time in (request.deadline, incoming.deadline) if time is not None]
    name = f"{incoming.peer.short}/{request.request_id[:200]}"
    _check_id(request)
    return replace(request, priority=priority + own, deadline=min(deadlines, default=None), request_id=name)


def _check_id(request: Request) -> None:
    if not request.request_id or len(request.request_id) > 200:
        raise InvalidRequest("expected a request id of 1 to 200 characters", "request_id")


def _tokens(chunk: Chunk) -> int:
    usage = chunk.usage or Usage()
    return len(chunk.token_ids) + usage.prompt_tokens - usage.cached_tokens
