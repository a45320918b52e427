"""Gossip at work: a thin loop that carries `membership`'s actions out over calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from shoal.core.clock import Clock
from shoal.core.errors import ShoalError
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.calls import Answering, Body, Caller, CallOptions, Incoming
from shoal.mesh.gossip import messages
from shoal.mesh.gossip.claims import Claim, Load, Statement, author, require_signature
from shoal.mesh.gossip.membership import (
    MAX_SYNC,
    SYNC_CLAIMS,
    Action,
    AskOthers,
    Membership,
    Probe,
    Settings,
    Sync,
    Tell,
)
from shoal.mesh.gossip.roster import Member, RingRoster
from shoal.mesh.peer_id import PeerId

MAX_AT_ONCE = 64
"""Actions under way; more than this are dropped, which others make good."""

MAX_ASKS = 8
"""Probes made for others at once."""

FAREWELL_S = 0.3
"""For goodbyes: a neighbour that does not answer by then finds out by itself."""

MAX_PAGES = 200
"""Syncs of 512 claims when joining: a hundred thousand members."""

_PLAIN = Settings()
PRIORITY = 1
"""Gossip goes before ordinary calls: a late probe is a false alarm."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What gossip stands on. `learned` hears addresses, `changed` every member whose status changed."""

    caller: Caller
    answering: Answering
    clock: Clock
    identity: PrivateKey
    address: Callable[[], Address]
    learned: Callable[[Address], None] = field(default=lambda address: None)
    changed: Callable[[Member], None] = field(default=lambda member: None)


class Gossip:
    """Membership while `run` runs."""

    def __init__(self, ground: Ground, settings: Settings = _PLAIN, seed: int | None = None) -> None:
        self.peer = PeerId(ground.identity.public)
        self._ground = ground
        own = Statement(ground.address(), int(ground.clock.wall()))
        rng = random.Random(seed)  # noqa: S311  whom to probe, not a secret
        self._membership = Membership(author(ground.identity), own, RingRoster(), settings, rng)
        self._membership.start(ground.clock.monotonic())
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_asks = 0
        ground.answering.unary("gossip.ping", self._on_ping)
        ground.answering.unary("gossip.tell", self._on_tell)
        ground.answering.unary("gossip.ask", self._on_ask)
        ground.answering.unary("gossip.sync", self._on_sync)

    # ---- what is asked of it ------------------------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        """Everybody heard of, this peer and the lately dead included."""
        return tuple(self._membership.roster.members())

    def member(self, peer: PeerId) -> Member | None:
        return self._membership.roster.get(peer)

    def is_usable(self, peer: PeerId) -> bool:
        """Alive, and not one that comes and goes (see `suspicion.Damping`)."""
        member = self.member(peer)
        is_alive = member is not None and member.status == "alive"
        return is_alive and not self._membership.flaps.is_damped(peer, self._now())

    def set_load(self, load: Load) -> None:
        """This peer's load now; neighbours see it at once, the mesh as its budget allows."""
        self._membership.state(replace(self._membership.own, address=self._ground.address(), load=load), self._now())
        self._woken.set()

    def doubt(self, peer: PeerId) -> None:
        """The link to `peer` has ended: probe it now rather than in its turn, if it is one of those watched here."""
        self._membership.doubt(peer, self._now())
        self._woken.set()

    async def join(self, seeds: Iterable[PeerId]) -> int:
        """Learn the members from the first seed that answers, tell it of this peer; how many are present then."""
        for seed in seeds:
            try:
                for _ in range(MAX_PAGES):
                    if not await self._pull(seed, MAX_SYNC):
                        break
                await self._ping(seed, self._membership.claims_for(seed), 5.0)
            except ShoalError:
                continue
            break
        return len(self._membership.roster)

    async def leave(self) -> None:
        """Say goodbye, to whoever hears it within FAREWELL_S; call before the links are closed."""
        told = [asyncio.ensure_future(self._do(action)) for action in self._membership.leave(self._now())]
        timer = asyncio.ensure_future(self._ground.clock.sleep(FAREWELL_S))
        everybody = asyncio.gather(*told)
        try:
            await asyncio.wait((everybody, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (timer, *told):
                task.cancel()
            await asyncio.gather(timer, *told, return_exceptions=True)

    async def run(self) -> None:
        """Until cancelled; then so is all that was under way."""
        try:
            while True:
                self._woken.clear()
                for action in self._membership.tick(self._now()):
                    self._spawn(self._do(action))
                self._report()
                await self._wait(self._membership.due)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- what others ask ----------------------------------------------------------------------------------------

    async def _on_ping(self, incoming: Incoming, body: memoryview) -> Body:
        self._membership.welcome(incoming.peer)
        self._take(messages.parse_claims(body))
        return messages.claims_bytes(self._membership.claims_for(incoming.peer))

    async def _on_tell(self, incoming: Incoming, body: memoryview) -> Body:
        self._membership.welcome(incoming.peer)
        self._take(messages.parse_claims(body))
        return b""

    async def _on_ask(self, incoming: Incoming, body: memoryview) -> Body:
        peer, timeout_s = messages.parse_ask(body)
        if self._num_asks >= MAX_ASKS or self.member(peer) is None:
            return messages.asked_bytes(False)
        self._num_asks += 1
        try:
            await self._ping(peer, self._membership.claims_for(peer), timeout_s)
            return messages.asked_bytes(True)
        except ShoalError:
            return messages.asked_bytes(False)
        finally:
            self._num_asks -= 1

    async def _on_sync(self, incoming: Incoming, body: memoryview) -> Body:
        marks, limit = messages.parse_sync(body)
        return messages.claims_bytes(self._membership.differing(marks, limit), messages.MAX_SYNC_MESSAGE)

    # ---- how ------------------------------------------------------------------------------------------------------

    async def _do(self, action: Action) -> None:
        try:
            match action:
                case Probe():
                    await self._probe(action)
                case AskOthers():
                    await self._ask_others(action)
                case Tell():
                    await self._call(action.peer, "gossip.tell", messages.claims_bytes(action.claims), 5.0)
                case Sync():
                    await self._pull(action.peer, SYNC_CLAIMS)
        except ShoalError:
            return  # nobody there, or nonsense: the probes will tell

    async def _probe(self, probe: Probe) -> None:
        try:
            await self._ping(probe.peer, probe.claims, probe.timeout_s)
            self._membership.answered(probe.peer)
        except ShoalError:
            for action in self._membership.silent(probe.peer):
                await self._do(action)

    async def _ask_others(self, ask: AskOthers) -> None:
        direct = self._reached(ask.peer, ask.timeout_s)
        body = messages.ask_bytes(ask.peer, min(ask.timeout_s / 2, messages.MAX_TIMEOUT_S))
        answers = await asyncio.gather(direct, *(self._asked(peer, body, ask.timeout_s) for peer in ask.helpers))
        missing = sum(answer is None for answer in answers[1:])
        self._membership.verdict(ask.peer, any(answers), missing, self._now())
        self._woken.set()

    async def _reached(self, peer: PeerId, timeout_s: float) -> bool | None:
        try:
            await self._ping(peer, self._membership.claims_for(peer), timeout_s)
            return True
        except ShoalError:
            return False

    async def _asked(self, helper: PeerId, body: bytes, timeout_s: float) -> bool | None:
        """Whether the helper reached it; None when the helper itself did not answer."""
        try:
            return messages.parse_asked(await self._call(helper, "gossip.ask", body, timeout_s))
        except ShoalError:
            return None

    async def _ping(self, peer: PeerId, claims: Iterable[Claim], timeout_s: float) -> None:
        data = await self._call(peer, "gossip.ping", messages.claims_bytes(claims), timeout_s)
        self._take(messages.parse_claims(data))

    async def _pull(self, peer: PeerId, limit: int) -> int:
        """Take in what `peer` knows and this one does not; how many claims were news."""
        body = messages.sync_bytes(self._membership.marks(), limit)
        return self._take(messages.parse_synced(await self._call(peer, "gossip.sync", body, 10.0)))

    async def _call(self, peer: PeerId, method: str, body: bytes, timeout_s: float) -> memoryview:
        member = self.member(peer)
        if member is not None:
            self._ground.learned(member.statement.address)
        return await self._ground.caller.call(peer, method, body, CallOptions(timeout_s, PRIORITY))

    def _take(self, claims: Iterable[Claim]) -> int:
        """PeerFault at the first claim of news that its author did not sign."""
        news = 0
        for claim in claims:
            if self._membership.is_news(claim):
                require_signature(claim)
                self._membership.take(claim, self._now())
                news += 1
        if news:
            self._report()
            self._woken.set()
        return news

    def _report(self) -> None:
        for member in self._membership.changes():
            self._ground.changed(member)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= MAX_AT_ONCE:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, until: float) -> None:
        sleep = asyncio.ensure_future(self._ground.clock.sleep(max(0.001, until - self._now())))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait((sleep, woken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            woken.cancel()

    def _now(self) -> float:
        return self._ground.clock.monotonic()
