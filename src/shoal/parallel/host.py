"""Stages served to peers: who may, how many, for how long. One thread computes, so steps never meet.

A session is a stream call. It ends with the call, after `IDLE_S` without a message, or at the first message that breaks
a rule; its blocks come back when the step in progress, if any, is done, for release goes through the same thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from shoal.core.clock import Clock
from shoal.core.errors import InvalidRequest, Overloaded, Unavailable
from shoal.core.waiting import within
from shoal.mesh.calls import Answering, CallStream, Incoming
from shoal.mesh.carrier import Bytes
from shoal.mesh.peer_id import PeerId
from shoal.parallel.frames import (
    METHOD,
    OFFERS,
    CopyFrame,
    Open,
    read_frame,
    read_open,
    write_info,
    write_offers,
    write_stream,
)
from shoal.parallel.stage import Session, Stage

FIRST_S = 20.0
IDLE_S = 900.0
TAKE_S = 30.0
MAX_WAIT_S = 30.0
"""For a peer beyond its rate: less than `hop.STEP_S`, after which it would think this node gone."""
MAX_SESSIONS = 16
MAX_PER_PEER = 4
MAX_SHARE = 0.5
"""Of a stage's cache, for one session: two askers always fit."""


def _free(peer: PeerId, num_tokens: float) -> float:
    """A charge that costs nothing."""
    return 0.0


@dataclass(slots=True)
class StageHost:
    """Serves `stages` until `close`.

    consent  raises (Unauthorized) for a peer that is not served; it is asked for every session and every offer.
    charge   (peer, tokens) after each step -> seconds its next one waits. A token through a third of the layers is a
             third of one.
    """

    stages: Sequence[Stage]
    consent: Callable[[PeerId], None]
    clock: Clock
    charge: Callable[[PeerId, float], float] = _free
    sessions: Counter[PeerId] = field(default_factory=Counter)
    _works: set[asyncio.Future[None]] = field(default_factory=set)
    _is_closed: bool = False
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "shoal-stage"))

    def register(self, answering: Answering) -> None:
        answering.streaming(METHOD, self.serve)
        answering.unary(OFFERS, self.offers)

    async def offers(self, incoming: Incoming, body: memoryview) -> bytes:
        """The stages there are; nothing, not even a name, for those who are not served."""
        self.consent(incoming.peer)
        return write_offers([stage.info for stage in self.stages])

    async def serve(self, incoming: Incoming, call: CallStream) -> None:
        """One session."""
        self.consent(incoming.peer)
        if self._is_closed:
            raise Unavailable("this node is stopping")
        messages = aiter(call)
        wish = read_open(await within(self.clock, FIRST_S, anext(messages)))
        stage = self._find(wish)
        self._admit(incoming.peer, stage, wish)
        work = asyncio.ensure_future(self._session(incoming.peer, call, messages, stage, wish))
        self._works.add(work)
        try:
            await work
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
            raise Unavailable("this node is stopping") from None
        finally:
            self._works.discard(work)
            self.sessions -= Counter({incoming.peer: 1})

    async def close(self) -> None:
        """End the sessions, wait for the step in progress, then let go of the weights."""
        self._is_closed = True
        works = list(self._works)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        for stage in self.stages:
            stage.close()

    def _find(self, wish: Open) -> Stage:
        for stage in self.stages:
            info = stage.info
            if (info.digest, info.first, info.last) == (wish.digest, wish.first, wish.last):
                return stage
        raise InvalidRequest(f"no stage with layers {wish.first} to {wish.last} of that model here", "layers")

    def _admit(self, peer: PeerId, stage: Stage, wish: Open) -> None:
        if self.sessions.total() >= MAX_SESSIONS or self.sessions[peer] >= MAX_PER_PEER:
            raise Overloaded(
                f"{self.sessions.total()} sessions are open here, {self.sessions[peer]} of them yours", 30.0
            )
        most = max(1, int(stage.num_blocks * MAX_SHARE))
        if wish.num_blocks > most:
            raise Overloaded(f"expected at most {most} blocks of cache, found {wish.num_blocks}", 30.0)
        self.sessions[peer] += 1

    async def _session(
        self, peer: PeerId, call: CallStream, messages: AsyncIterator[memoryview], stage: Stage, wish: Open
    ) -> None:
        loop = asyncio.get_running_loop()
        taking = self._thread.submit(stage.take, wish.num_blocks)
        try:
            session = await asyncio.wrap_future(taking)
            await self._send(call, [write_info(stage.info)])
            while (message := await self._next(messages)) is not None:
                answer, num_tokens = await loop.run_in_executor(self._thread, _obey, stage, session, message)
                if answer:
                    await self._send(call, answer)
                await self.clock.sleep(min(self.charge(peer, num_tokens), MAX_WAIT_S))
            await call.end()
        finally:
            self._thread.submit(_give_back, stage, taking)

    async def _next(self, messages: AsyncIterator[memoryview]) -> memoryview | None:
        try:
            return await within(self.clock, IDLE_S, anext(messages))
        except StopAsyncIteration:
            return None

    async def _send(self, call: CallStream, message: list[Bytes]) -> None:
        await within(self.clock, TAKE_S, call.send(message))


def _give_back(stage: Stage, taking: Future[Session]) -> None:
    if taking.exception() is None:
        stage.give_back(taking.result())


def _obey(stage: Stage, session: Session, message: memoryview) -> tuple[list[Bytes], float]:
    """In the stage's thread: what to answer, or nothing, and what it cost in tokens of a whole model."""
    info = stage.info
    frame = read_frame(message, info.hidden_size)
    share = (info.last - info.first) / max(info.num_layers, 1)
    if isinstance(frame, CopyFrame):
        stage.copy(session, frame)
        return [], share * len(frame.pairs)  # as much as a token each: nobody copies for ever for nothing
    return write_stream(stage.step(session, frame)), share * len(frame.stream)
