"""The loops around the switchboard's decisions: accept, dial, keep, tidy up once a second."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

from shoal.core.clock import Clock
from shoal.core.errors import LinkClosed, ShoalError, Unreachable
from shoal.mesh.address import Address
from shoal.mesh.carrier import NO_FAREWELL, Carrier, Link, LinkInfo
from shoal.mesh.peer_id import PeerId
from shoal.mesh.switchboard import record as records
from shoal.mesh.switchboard.book import AddressBook
from shoal.mesh.switchboard.choice import is_chooser
from shoal.mesh.switchboard.dialing import dial_all, in_order, is_near
from shoal.mesh.switchboard.gate import Gate, Limits, site_of
from shoal.mesh.switchboard.lines import Line, Lines
from shoal.mesh.switchboard.record import PeerReport, Record, Step

LOG = logging.getLogger(__name__)

TICK_S = 1.0
DOUBT_S = 30.0
"""After the last link to a peer has ended: by then membership knows whether it lives."""
MAX_RECORDS = 4096
"""Peers whose history is kept; those without a link are forgotten first."""
FORGET_S = 600.0
"""After which nothing is kept of a peer without a link that nobody asked for."""
MAX_TRIES = 12
"""Failed dials, some ten minutes of them, after which a kept peer is let go; discovery may name it again."""


class Switchboard:
    """`on_link` is called with every new link, whoever dialled, `on_lost` with a peer whose last link has ended;
    `is_busy` says whether calls run over a link.

    `start` begins accepting; `close` ends all links, not the carriers, which belong to who made them.
    """

    def __init__(self, me: PeerId, carriers: Sequence[Carrier], clock: Clock, limits: Limits | None = None) -> None:
        self.me = me
        self.book = AddressBook()
        self.on_link: Callable[[Link], None] = lambda link: None
        self.on_lost: Callable[[PeerId], None] = lambda peer: None
        self.is_busy: Callable[[Link], bool] = lambda link: False
        self._carriers = tuple(carriers)
        self._clock = clock
        self._limits = limits or Limits()
        self._gate = Gate(self._limits, clock.monotonic())
        self._lines = Lines(me)
        self._records: dict[PeerId, Record] = {}
        self._kept: dict[PeerId, None] = {}
        self._dials: dict[PeerId, asyncio.Task[None]] = {}
        self._waiters: dict[PeerId, list[asyncio.Future[Link]]] = {}
        self._upgraded: dict[PeerId, float] = {}
        self._dice = random.Random(me.key)  # noqa: S311 - spreads retries; nothing secret
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self) -> None:
        for carrier in self._carriers:
            self._spawn(self._accept(carrier))
        self._spawn(self._tidy())

    # ---- asking -----------------------------------------------------------------------------------------

    async def link(self, peer: PeerId) -> Link:
        """The link to `peer`, made where there is none. Unreachable says which steps failed and when to try again."""
        line = self._lines.used(peer)
        if line is not None:
            return line.link
        self._check_dialable(peer)
        self._dial(peer)
        waiter: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(peer, [])
        waiters.append(waiter)
        try:
            return await waiter
        finally:
            waiters.remove(waiter)
            if not waiters and self._waiters.get(peer) is waiters:
                del self._waiters[peer]

    def learn(self, address: Address, source: str) -> None:
        """Somebody says where a peer may be reached. What is new ends the peer's back-off."""
        if address.peer == self.me:
            return
        if self.book.add(address, source, self._clock.monotonic()) and address.peer in self._records:
            self._records[address.peer] = records.renewed(self._records[address.peer])

    def adopt(self, link: Link) -> None:
        """A link somebody made beside the carriers' `accept` and our dials: an arranged meeting."""
        self._add(link)

    def keep(self, peer: PeerId) -> None:
        """Hold a link to this peer: dial, and dial again when it is lost, until MAX_TRIES fail in a row."""
        self._kept[peer] = None

    def release(self, peer: PeerId) -> None:
        self._kept.pop(peer, None)

    def address(self) -> Address:
        """Where this node may be reached, over all carriers."""
        merged = Address(self.me)
        for carrier in reversed(self._carriers):
            merged = merged.merged(carrier.address())
        return merged

    def connected(self) -> list[PeerId]:
        """Peers with a link."""
        return self._lines.peers()

    def is_doubtful(self, peer: PeerId) -> bool:
        """Whether there is no link to a peer that had one a moment ago, or that cannot be reached."""
        record = self._records.get(peer)
        if record is None or self._lines.of(peer):
            return False
        return record.failures > 0 or (record.links > 0 and self._clock.monotonic() - record.ended_at < DOUBT_S)

    def tells_its_end(self, peer: PeerId) -> bool:
        """Whether the link in use ends at once when the process at the other end does."""
        used = self._lines.used(peer)
        return used is not None and used.info.carrier == "tcp"

    def snapshot(self) -> tuple[PeerReport, ...]:
        """Every peer with a link or a history, connected ones first."""
        peers = dict.fromkeys((*self._lines.peers(), *self._kept, *self._records))
        return tuple(self._report(peer) for peer in peers)

    async def close(self, reason: str = "this node is stopping") -> None:
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(LinkClosed("this node is stopping"))
        await asyncio.gather(*(line.link.close(reason) for line in self._lines.all()))

    # ---- loops ------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, carrier: Carrier) -> None:
        while True:
            try:
                link = await carrier.accept()
            except LinkClosed:
                return
            now = self._clock.monotonic()
            refusal = self._gate.refusal_of_site(site_of(link.info()), self._infos(), now)
            refusal = refusal or self._gate.refusal(self._lines.count, self._with_room(link.peer), now)
            if refusal:
                self._spawn(_close(link, refusal))
            else:
                self._add(link)

    def _with_room(self, peer: PeerId) -> int:
        """Links of a peer that has come again, one below its most: the quietest one gives way.

        A peer that was killed and restarted leaves links that look alive for half a minute; refusing its new ones for
        that long would lock it out. Nobody else can do this to it: the key is proven.
        """
        lines, most = self._lines.of(peer), self._limits.links_per_peer
        if len(lines) >= most:
            quietest = min(lines, key=lambda line: line.active_at)
            self._spawn(_close(quietest.link, f"a newer link takes its place; {most} are the most"))
        return min(len(lines), most - 1)

    def _infos(self) -> Iterator[LinkInfo]:
        return (line.info for line in self._lines.all())

    async def _tidy(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Once a second: sample, close what is idle or surplus, dial what is kept, try to better relayed links."""
        now = self._clock.monotonic()
        for line in self._lines.all():
            line.sample(now)
        for peer in self._lines.peers():
            self._tidy_peer(peer, now)
        for peer in list(self._kept):
            self._hold(peer, now)
        self._forget(now)

    def _hold(self, peer: PeerId, now: float) -> None:
        record = self._record(peer)
        if self._lines.of(peer) or now < record.retry_at:
            return
        if record.failures >= MAX_TRIES:
            self.release(peer)
        else:
            self._dial(peer)

    def _tidy_peer(self, peer: PeerId, now: float) -> None:
        used = self._lines.used(peer)
        for line in self._lines.of(peer):
            quiet_s = now - line.active_at
            if self.is_busy(line.link):
                continue
            if line is not used and is_chooser(self.me, peer) and quiet_s >= self._limits.surplus_s:
                self._spawn(_close(line.link, "another link to the same peer is used"))
            elif line is used and quiet_s >= self._limits.idle_s and peer not in self._kept:
                self._spawn(_close(line.link, f"idle for {self._limits.idle_s:g} s"))
        if used is not None and used.info.path == "relayed":
            since = self._upgraded.setdefault(peer, now)
            if now - since >= self._limits.upgrade_s:
                self._upgraded[peer] = now
                self._dial(peer)

    # ---- dialing ----------------------------------------------------------------------------------------

    def _check_dialable(self, peer: PeerId) -> None:
        if self._is_closed:
            raise LinkClosed("this node is stopping")
        if peer == self.me:
            raise Unreachable("that is this node itself")
        record, now = self._record(peer), self._clock.monotonic()
        if record.phase == "backoff" and now < record.retry_at:
            head = f"{peer.short} could not be reached; next try in {record.retry_at - now:.1f} s"
            raise Unreachable(head, tuple(step.what for step in record.steps))
        if self._lines.count >= self._limits.links:
            raise Unreachable(f"this node has {self._lines.count} links, its most; raise the limit or close some")

    def _dial(self, peer: PeerId) -> None:
        if peer not in self._dials:
            task = self._dials[peer] = self._spawn(self._run_dial(peer))
            task.add_done_callback(lambda done: self._dial_ended(peer, done))

    def _dial_ended(self, peer: PeerId, task: asyncio.Task[None]) -> None:
        """Nobody waits for a dial that broke."""
        if self._dials.get(peer) is task:
            del self._dials[peer]
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("dialing %s broke", peer.short, exc_info=error)
            self._fail(peer, (Step(f"dialing broke: {type(error).__name__}, see the log", 0.0),))

    async def _run_dial(self, peer: PeerId) -> None:
        started = self._clock.monotonic()
        if not self._lines.of(peer):
            self._records[peer] = records.dialing(self._record(peer), started)
        address = self.book.address(peer, started)
        if address.is_empty:
            self._fail(
                peer, (Step("no address is known: wait for discovery, or join with a ticket that names it", 0.0),)
            )
            return
        near = is_near(address, self.address())
        limits = replace(self._limits, stagger_s=self._limits.near_stagger_s) if near else self._limits
        carriers = in_order([carrier for carrier in self._carriers if _speaks(carrier, address)], near)
        steps = await dial_all(carriers, address, limits, self._clock, self._dialed)
        if not carriers:
            names = ", ".join(carrier.name for carrier in self._carriers) or "none"
            steps = (Step(f"the peer has no endpoint for a carrier of this node ({names})", 0.0),)
        if self._lines.of(peer):
            self._records[peer] = replace(self._record(peer), steps=steps[: records.MAX_STEPS])
        else:
            self._fail(peer, steps)

    def _dialed(self, link: Link) -> None:
        self.book.worked(link.peer, link.info(), self._clock.monotonic())
        self._add(link)

    def _fail(self, peer: PeerId, steps: tuple[Step, ...]) -> None:
        self._dials.pop(peer, None)  # before a waiter wakes: it may ask again at once
        now = self._clock.monotonic()
        record = self._records[peer] = records.failed(self._record(peer), steps, now, self._dice.random())
        head = f"{peer.short} cannot be reached (try {record.failures})"
        for waiter in self._waiters.pop(peer, []):
            if not waiter.done():
                waiter.set_exception(Unreachable(head, tuple(step.what for step in steps)))

    # ---- links ------------------------------------------------------------------------------------------

    def _add(self, link: Link) -> None:
        now = self._clock.monotonic()
        line = self._lines.add(link, now)
        self._records[link.peer] = records.connected(self._record(link.peer), now)
        self._spawn(self._watch(line))
        for waiter in self._waiters.pop(link.peer, []):
            if not waiter.done():
                waiter.set_result(link)
        self.on_link(link)

    async def _watch(self, line: Line) -> None:
        reason = await line.link.closed()
        self._lines.remove(line)
        peer = line.link.peer
        if reason.startswith(NO_FAREWELL):  # so its other links are dead too, and QUIC would learn it in half a minute
            for other in self._lines.of(peer):
                self._spawn(_close(other.link, "another link to this peer ended without a farewell"))
        if not self._lines.of(peer):
            self._upgraded.pop(peer, None)
            self._records[peer] = records.ended(self._record(peer), reason, self._clock.monotonic())
            if not self._is_closed:
                self.on_lost(peer)

    def _record(self, peer: PeerId) -> Record:
        return self._records.get(peer) or Record()

    def _forget(self, now: float) -> None:
        """Histories of peers without a link: the old ones, and the first of those beyond MAX_RECORDS."""
        surplus = len(self._records) - MAX_RECORDS
        for peer, record in list(self._records.items()):
            if self._lines.of(peer) or peer in self._dials or peer in self._kept:
                continue
            if surplus > 0 or now - record.changed_at >= FORGET_S:
                del self._records[peer]
                surplus -= 1

    def _report(self, peer: PeerId) -> PeerReport:
        now, record, used = self._clock.monotonic(), self._record(peer), self._lines.used(peer)
        entry = self.book.entry(peer, now)
        return PeerReport(
            peer=peer,
            phase="connected" if used else record.phase,
            link=used.info if used else None,
            others=max(len(self._lines.of(peer)) - 1, 0),
            throughput=used.rate if used else None,
            is_kept=peer in self._kept,
            failures=record.failures,
            retry_in_s=max(record.retry_at - now, 0.0) if record.phase == "backoff" else 0.0,
            steps=record.steps,
            last_end=record.last_end,
            source=entry.source if entry else "",
        )


def _speaks(carrier: Carrier, address: Address) -> bool:
    """Whether the address has a hint for this carrier."""
    return bool(address.tcp) if carrier.name == "tcp" else bool(address.udp or address.relays)


async def _close(link: Link, reason: str) -> None:
    try:
        await link.close(reason)
    except (ShoalError, OSError):
        return
