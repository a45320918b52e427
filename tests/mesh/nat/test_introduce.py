"""Observers and introductions over a fake of the calls: every message and every refusal, no network."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode
from shoal.core.errors import Overloaded, PeerFault, ShoalError, Unreachable
from shoal.mesh.address import Address
from shoal.mesh.calls import CallOptions, Incoming, StreamHandler, UnaryHandler
from shoal.mesh.carrier import LinkInfo
from shoal.mesh.fakes import numbered
from shoal.mesh.nat.introduce import BURST, Introducer, meet
from shoal.mesh.nat.journal import Journal
from shoal.mesh.nat.observe import answer_observe, observe
from shoal.mesh.peer_id import PeerId

PLAIN = CallOptions()
A, B, C = (numbered(n) for n in (1, 2, 3))
HOMES = {A: "44.1.1.1:1", B: "44.2.2.2:2", C: "44.3.3.3:3"}


def link_from(peer: PeerId, path: str = "direct", carrier: str = "quic") -> LinkInfo:
    return LinkInfo(carrier, path, HOMES[peer], 0.0, False)  # type: ignore[arg-type]


@dataclass
class Town:
    """Three peers that can call each other; links are as `paths` says."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    paths: dict[PeerId, str] = field(default_factory=dict)
    carrier: str = "quic"
    dialed: list[tuple[PeerId, Address]] = field(default_factory=list)
    desks: dict[PeerId, dict[str, UnaryHandler]] = field(default_factory=dict)
    journals: dict[PeerId, Journal] = field(default_factory=dict)
    introducers: dict[PeerId, Introducer] = field(default_factory=dict)

    def move_in(self, peer: PeerId) -> "Resident":
        resident = Resident(self, peer)
        self.desks[peer] = {}
        self.journals[peer] = Journal(self.clock)
        made = Introducer(resident, self.info, resident.dial, self.journals[peer], self.clock)
        self.introducers[peer] = made
        made.answer(resident)
        answer_observe(resident)
        return resident

    def info(self, peer: PeerId) -> LinkInfo | None:
        path = self.paths.get(peer, "direct")
        return None if path == "none" else link_from(peer, path, self.carrier)


@dataclass
class Resident:
    town: Town
    me: PeerId

    def unary(self, method: str, handler: UnaryHandler) -> None:
        self.town.desks[self.me][method] = handler

    def streaming(self, method: str, handler: StreamHandler) -> None:
        raise AssertionError("no streams here")

    async def call(self, peer: PeerId, method: str, body: Any, options: CallOptions = PLAIN) -> memoryview:
        info = self.town.info(self.me)
        assert info is not None
        incoming = Incoming(self.me, method, None, lambda: info)
        return memoryview(bytes(await self.town.desks[peer][method](incoming, memoryview(bytes(body)))))

    def stream(self, peer: PeerId, method: str, options: CallOptions = PLAIN) -> Any:
        raise AssertionError("no streams here")

    async def dial(self, address: Address, timeout_s: float) -> Any:
        self.town.dialed.append((self.me, address))
        return "a link"


def town(**paths: str) -> tuple[Town, Resident]:
    made = Town(paths={{"a": A, "c": C}[name]: path for name, path in paths.items()})
    residents = [made.move_in(peer) for peer in (A, B, C)]
    return made, residents[0]


def test_both_dial_the_address_the_common_peer_has_seen() -> None:
    async def work() -> None:
        made, a = town()
        assert await meet(a, B, C, a.dial) == "a link"
        await asyncio.sleep(0)
        assert sorted(made.dialed, key=lambda row: row[0]) == sorted(
            [(A, Address(C, (HOMES[C],))), (C, Address(A, (HOMES[A],)))], key=lambda row: row[0]
        )
        assert made.journals[C].steps()[0].is_good

    asyncio.run(work())


@pytest.mark.parametrize(("a", "c"), [("relayed", "direct"), ("direct", "relayed"), ("direct", "none")])
def test_addresses_nobody_has_proven_are_never_handed_on(a: str, c: str) -> None:
    async def work() -> None:
        made, asker = town(a=a, c=c)
        with pytest.raises(Unreachable, match="no direct quic link"):
            await meet(asker, B, C, asker.dial)
        assert made.dialed == []

    asyncio.run(work())


def test_nobody_is_made_to_dial_more_than_a_few_times() -> None:
    async def work() -> None:
        made, a = town()
        for _ in range(int(BURST)):
            await meet(a, B, C, a.dial)
            for _ in range(3):  # the other side's dial ends; while it runs there is no second one
                await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await meet(a, B, C, a.dial)
        assert caught.value.retry_after_s > 0
        assert sum(who == C for who, _ in made.dialed) == BURST
        await made.clock.advance(60)  # a minute later there is room again
        await meet(a, B, C, a.dial)

    asyncio.run(work())


def test_a_lying_introducer_is_limited_too() -> None:
    async def work() -> None:
        made, _ = town()
        b = Resident(made, B)
        refused = 0
        for n in range(100):
            try:
                await b.call(C, "nat.dial", encode([numbered(n + 50).key, ["44.7.7.7:7"]]))
            except Overloaded:
                refused += 1
        await asyncio.sleep(0)
        assert (len(made.dialed), refused) == (BURST, 100 - BURST)

    asyncio.run(work())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        encode([]),
        encode({}),
        encode([b"short", ["44.1.1.1:1"]]),
        encode([A.key, []]),
        encode([A.key, ["127.0.0.1:1"]]),
        encode([A.key, ["44.1.1.1:1"] * 5]),
        encode([A.key, ["example.org:1"]]),
        encode([A.key, [7]]),
    ],
)
def test_orders_that_mean_nothing_are_the_peers_fault(body: bytes) -> None:
    async def work() -> None:
        made, _ = town()
        with pytest.raises(PeerFault):
            await Resident(made, B).call(C, "nat.dial", body)
        assert made.dialed == []

    asyncio.run(work())


def test_observers_answer_what_they_see_and_failures_are_observations() -> None:
    async def work() -> None:
        made, a = town()
        made.desks[C]["nat.observe"] = refuse
        seen, failed = await observe(a, (B, C))
        assert (seen.seen, failed.seen) == (HOMES[A], None)
        assert failed.why == "no"
        made.paths[A] = "relayed"
        (relayed,) = await observe(a, (B,))
        assert (relayed.seen, relayed.why) == (None, "reached through a relay only")

    asyncio.run(work())


async def refuse(incoming: Incoming, body: memoryview) -> bytes:
    raise ShoalError("no")


def test_the_address_of_another_carrier_is_of_no_use() -> None:
    async def work() -> None:
        made, a = town()
        made.carrier = "tcp"
        (item,) = await observe(a, (B,))
        assert item.seen is None

    asyncio.run(work())
