"""Rendezvous without a relay: a common peer tells two others to dial each other at the same time.

    A -> B  nat.introduce [C]              A wants C; both have a link to B
    B -> C  nat.dial [A, A's addresses]    C begins to dial A, its packets open its NAT
    B -> A  [C's addresses]                A dials C, its packets open A's NAT; whoever arrives second gets through

Nobody can be made to attack a third party: B names no addresses but those its own links to A and C come from, proven
by QUIC, and never a relayed one; so C's packets only ever go where A is. B limits how often each peer asks and is
asked about, C limits how often anybody makes it dial; a dial that nobody answers is a few hundred bytes a second.
B lying to C gains B a few handshake packets to an address of its choice, DIALS_PER_MINUTE times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shoal.core.clock import Clock
from shoal.core.encoding import encode
from shoal.core.errors import Overloaded, PeerFault, ShoalError, Unreachable
from shoal.mesh import parse
from shoal.mesh.address import Address
from shoal.mesh.bucket import Bucket
from shoal.mesh.calls import Answering, Caller, CallOptions, Incoming
from shoal.mesh.carrier import Link, LinkInfo
from shoal.mesh.nat.classify import version_of
from shoal.mesh.nat.journal import Journal
from shoal.mesh.nat.observe import CARRIER
from shoal.mesh.peer_id import ID_BYTES, PeerId

INTRODUCE, DIAL = "nat.introduce", "nat.dial"
MAX_MESSAGE = 1024
MAX_HINTS = 4
ASKS_PER_MINUTE = 30.0
"""Introductions one peer may ask for, and times one peer may be asked about."""

DIALS_PER_MINUTE = 60.0
"""Dials others may cause here, all together."""

BURST = 10.0
"""Of either at once, after a silence."""

MAX_PEERS = 4096
DIAL_S = 5.0

DialTogether = Callable[[Address, float], Awaitable[Link]]
LinkOf = Callable[[PeerId], LinkInfo | None]
"""The open quic link to a peer, None where there is none."""


class Introducer:
    """Answers introductions: as the common peer (B) and as the one who is wanted (C)."""

    def __init__(self, caller: Caller, link_of: LinkOf, dial: DialTogether, journal: Journal, clock: Clock) -> None:
        self._caller, self._link_of, self._dial = caller, link_of, dial
        self._journal, self._clock = journal, clock
        self._budgets: dict[PeerId, Bucket] = {}
        self._dials = Bucket(DIALS_PER_MINUTE / 60, BURST, clock.monotonic())
        self._dialing: dict[PeerId, asyncio.Task[None]] = {}

    def answer(self, answering: Answering) -> None:
        answering.unary(INTRODUCE, self._introduce)
        answering.unary(DIAL, self._told_to_dial)

    async def close(self) -> None:
        for task in self._dialing.values():
            task.cancel()
        await asyncio.gather(*self._dialing.values(), return_exceptions=True)

    # ---- B

    async def _introduce(self, incoming: Incoming, body: memoryview) -> bytes:
        wanted = parse.peer_id(parse.row(parse.message(body, MAX_MESSAGE), 1)[0])
        self._spend(incoming.peer)
        self._spend(wanted)
        asker, target = _public(incoming.link()), _public(self._link_of(wanted))
        if not asker or not target:
            who = "this peer" if not asker else f"peer {wanted.short}"
            raise Unreachable(f"cannot introduce: no direct quic link to {who}, so its address is not known here")
        told = encode([incoming.peer.key, [asker]])
        await self._caller.call(wanted, DIAL, told, CallOptions(timeout_s=DIAL_S))
        return encode([[target]])

    def _spend(self, peer: PeerId) -> None:
        now = self._clock.monotonic()
        if len(self._budgets) >= MAX_PEERS and peer not in self._budgets:
            del self._budgets[next(iter(self._budgets))]
        if not self._budgets.setdefault(peer, Bucket(ASKS_PER_MINUTE / 60, BURST, now)).take(1, now):
            raise Overloaded(f"too many introductions for peer {peer.short}", 60 / ASKS_PER_MINUTE)

    # ---- C

    async def _told_to_dial(self, incoming: Incoming, body: memoryview) -> bytes:
        key, hints = parse.row(parse.message(body, MAX_MESSAGE), 2)
        peer = PeerId(parse.octets(key, ID_BYTES, ID_BYTES))
        udp = _hints(hints)
        if not self._dials.take(1, self._clock.monotonic()):
            raise Overloaded("too many introductions here", 60 / DIALS_PER_MINUTE)
        if peer not in self._dialing:
            task = asyncio.create_task(self._dial_quietly(Address(peer, udp), incoming.peer))
            self._dialing[peer] = task
            task.add_done_callback(lambda _: self._dialing.pop(peer, None))
        return b""

    async def _dial_quietly(self, address: Address, introducer: PeerId) -> None:
        what = f"dial {address.peer.short} together, told by {introducer.short}"
        try:
            await self._dial(address, DIAL_S)
        except ShoalError as error:
            self._journal.note(what, str(error), is_good=False)
        else:
            self._journal.note(what, "it answered")


async def meet(caller: Caller, common: PeerId, wanted: PeerId, dial: DialTogether) -> Link:
    """A's side: a link to `wanted` by way of `common`. Unreachable, PeerFault or Overloaded where it cannot be."""
    answer = await caller.call(common, INTRODUCE, encode([wanted.key]), CallOptions(timeout_s=2 * DIAL_S))
    return await dial(Address(wanted, _hints(parse.row(parse.message(answer, MAX_MESSAGE), 1)[0])), DIAL_S)


def _hints(value: object) -> tuple[str, ...]:
    hints = tuple(parse.text(hint, 64) for hint in parse.many(value, MAX_HINTS))
    if not hints or not all(version_of(hint) for hint in hints):
        raise PeerFault("expected one to four public addresses")
    return hints


def _public(info: LinkInfo | None) -> str | None:
    """Where a quic link comes from, None for a relayed one and for addresses that mean nothing elsewhere."""
    if info is None or info.carrier != CARRIER or info.path == "relayed" or version_of(info.remote) is None:
        return None
    return info.remote
