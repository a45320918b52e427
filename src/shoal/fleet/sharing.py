"""The local engine for peers: handlers of "fleet.answer" and "fleet.models". Nothing is served without consent.

What this does not protect against: a peer that is served sees what any user sees, so it can copy the model's answers;
and the owner of the engine sees every prompt that peers send here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.decoding import compact, parse
from shoal.core.encoding import decode, encode
from shoal.core.errors import ContextTooLong, InvalidRequest, PeerFault, RemoteError
from shoal.core.request import Request
from shoal.core.seams import Generate
from shoal.core.service import ModelCard
from shoal.core.text import is_plain
from shoal.core.waiting import within
from shoal.fleet.accounts import Accounts
from shoal.fleet.batches import batched
from shoal.fleet.cost import prompt_tokens
from shoal.fleet.provider import Load
from shoal.fleet.wire import METHOD, MODELS, TICK_S, read_request, write_chunks
from shoal.mesh.calls import Answering, CallStream, Incoming
from shoal.mesh.peer_id import PeerId

MAX_OFFER_BYTES = 512 * 2**10
MAX_CONSTRAINT_CHARS = 16 * 2**10
"""Of a peer's grammar: what takes longest to compile at this size takes a tenth of a second."""
FIRST_S = 60.0
"""For the request of a call that was opened; it takes no seat until it is there."""
TAKE_S = 30.0
"""For a peer to take a message of its answer; one that reads no more loses its seat."""
BYTES_PER_TOKEN = 16
USUAL_CONTEXT = 2**15
LARGE_BYTES = 64 * 2**10
"""From here on a request is read in a thread."""
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
        peer, is_member = incoming.peer, self.is_member(incoming.peer)
        self.accounts.check_consent(peer, is_member)
        message = await within(self.clock, FIRST_S, _only_message(call))
        if len(message) > (most := self._most_bytes()):
            raise ContextTooLong(f"expected a request of at most {most} bytes here, found {len(message)}", "prompt")
        priority = self.accounts.admit(peer, is_member, self.clock.monotonic())
        cost = _Cost()
        try:
            request = await self._read(message, incoming, priority)
            self.accounts.occupy(peer, request.n - cost.seats)
            cost.seats, cost.unpaid = request.n, round(prompt_tokens(request))
            await self._send(call, [])  # whoever asks knows at once that somebody is there
            async with aclosing(batched(self.generate(request), self.clock, TICK_S)) as batches:
                async for batch in batches:
                    cost.add(batch)
                    await self._send(call, batch)
            await call.end()
        except InvalidRequest:
            cost.unpaid = 0  # refused before anything was computed
            raise
        finally:
            self.accounts.settle(peer, cost.num_tokens + cost.unpaid, self.clock.monotonic(), cost.seats)

    def _most_bytes(self) -> int:
        """Beyond it nothing fits the model's context: reading it would only keep this machine busy."""
        context = max((card.context_length or 0 for card in self.cards()), default=0) or USUAL_CONTEXT
        return MAX_CONSTRAINT_CHARS + BYTES_PER_TOKEN * context + LARGE_BYTES

    async def _send(self, call: CallStream, batch: list[Chunk]) -> None:
        await within(self.clock, TAKE_S, call.send(write_chunks(batch) if batch else b""))

    async def _read(self, message: memoryview, incoming: Incoming, priority: int) -> Request:
        now = self.clock.monotonic()
        if len(message) < LARGE_BYTES:
            return _served(message, incoming, priority, now)
        return await asyncio.to_thread(_served, message, incoming, priority, now)

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
    """PeerFault for anything but an offer of at most 1,000 models with names that can be shown."""
    if len(data) > MAX_OFFER_BYTES:
        raise PeerFault(f"expected an offer of at most {MAX_OFFER_BYTES} bytes, found {len(data)}")
    try:
        offer = parse(Offer, decode(bytes(data)))
    except RemoteError as error:
        raise PeerFault(f"expected an offer, {error}") from error
    speeds = [speed for speed in (offer.prefill_tps, offer.stream_tps, offer.total_tps) if speed is not None]
    if len(offer.cards) > 1000 or not 0 <= offer.price_usd_per_mtok < 1e9:
        raise PeerFault("expected at most 1,000 models and a price that is not negative")
    if not 1 <= offer.seats <= 10_000 or not all(0 < speed < 1e9 for speed in speeds):
        raise PeerFault("expected 1 to 10,000 seats and speeds above 0")
    if not all(map(_is_showable, offer.cards)):
        raise PeerFault("expected names of at most 200 characters, none of them a control character")
    return offer


def _is_showable(card: ModelCard) -> bool:
    texts = (card.id, card.owned_by, card.parent or "", card.family or "", card.quantization or "", *card.capabilities)
    return bool(card.id) and len(card.capabilities) <= 16 and all(len(t) <= 200 and is_plain(t) for t in texts)


async def _only_message(call: CallStream) -> memoryview:
    async for message in call:
        return message
    raise InvalidRequest("expected a request, found an empty call")


def _served(message: memoryview, incoming: Incoming, priority: int, now: float) -> Request:
    request = read_request(message, now)
    own = max(-PRIORITY_RANGE, min(PRIORITY_RANGE, request.priority))
    deadlines = [time for time in (request.deadline, incoming.deadline) if time is not None]
    name = f"{incoming.peer.short}/{request.request_id[:200]}"
    _check(request)
    return replace(request, priority=priority + own, deadline=min(deadlines, default=None), request_id=name)


def _check(request: Request) -> None:
    if not 1 <= len(request.request_id) <= 200 or not is_plain(request.request_id):
        raise InvalidRequest("expected a request id of 1 to 200 characters", "request_id")
    if request.n < 1:
        raise InvalidRequest(f"n: expected at least 1, found {request.n}", "n")
    size = 0 if request.constraint is None else len(request.constraint.value)
    if size + sum(len(encode(compact(tool))) for tool in request.tools) > MAX_CONSTRAINT_CHARS:
        raise InvalidRequest(
            f"expected at most {MAX_CONSTRAINT_CHARS} characters of grammar and tools from a peer", "response_format"
        )


@dataclass(slots=True)
class _Cost:
    """What a request takes. `unpaid`: prompt tokens not accounted for while no usage has come: whoever leaves early
    has had them computed all the same."""

    seats: int = 1
    num_tokens: int = 0
    unpaid: int = 0

    def add(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self.num_tokens += len(chunk.token_ids)
            if chunk.usage is not None:
                self.num_tokens += chunk.usage.prompt_tokens - chunk.usage.cached_tokens
                self.unpaid = 0
