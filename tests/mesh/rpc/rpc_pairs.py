"""Two `Rpc`s over links in memory, under a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from shoal.core.clock import VirtualClock
from shoal.core.errors import Unreachable
from shoal.mesh.carrier import Link
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc import Introduction, Limits, Rpc
from shoal.mesh.rpc.fakes import FakeLink, link_pair
from shoal.mesh.rpc.hello import Handshake, Hello

ALICE, BOB = PeerId(b"a" * 32), PeerId(b"b" * 32)


@dataclass(slots=True)
class Pair:
    """Alice dials bob; `cut` ends the link, and the next call makes a new one."""

    alice: Rpc
    bob: Rpc
    clock: VirtualClock
    here: FakeLink | None = None
    there: FakeLink | None = None
    links: int = 0
    is_down: bool = False

    async def connect(self, peer: PeerId) -> Link:
        if self.is_down:
            raise Unreachable(f"no way to {peer.short}")
        if self.here is None:
            self.here, self.there = link_pair(ALICE, BOB)
            self.links += 1
            self.bob.accepted(self.there)
        return self.here

    async def back(self, peer: PeerId) -> Link:
        assert self.there is not None
        return self.there

    async def cut(self) -> None:
        assert self.here is not None
        link, self.here = self.here, None
        await link.close("cut")
        await settle()


async def settle(turns: int = 40) -> None:
    """Let everything that can run do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


@asynccontextmanager
async def pair(
    limits: Limits | None = None, alice: Introduction | None = None, bob: Introduction | None = None
) -> AsyncIterator[Pair]:
    """Both rpcs are closed afterwards, and no task is left."""
    before = asyncio.all_tasks()
    clock = VirtualClock()
    made: list[Pair] = []

    async def connect(peer: PeerId) -> Link:
        return await (made[0].connect(peer) if peer == BOB else made[0].back(peer))

    made.append(
        Pair(
            Rpc(alice or Introduction(ALICE, "alice/1"), connect, clock, limits),
            Rpc(bob or Introduction(BOB, "bob/1"), connect, clock, limits),
            clock,
        )
    )
    try:
        yield made[0]
    finally:
        await made[0].alice.close()
        await made[0].bob.close()
        await settle()
        assert asyncio.all_tasks() == before


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 20))


async def raw_hello(link: FakeLink, me: PeerId, **changes: Any) -> Any:
    """Say hello by hand, as the dialer; the stream, ready for frames of one's own making."""
    mine = replace(Hello("mallory", b"n" * 32), **changes)
    side = Handshake(me, link.peer, mine, is_dialer=True)
    stream = await link.open()
    await stream.write(side.start())
    while side.agreed is None:
        await stream.write(side.receive(await stream.read(4096)))
    return stream
