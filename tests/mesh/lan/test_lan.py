"""LAN discovery: the datagram, the rules of speaking, and real multicast between nodes of one machine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.clock import SystemClock
from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.lan.announcement import (
    MAGIC,
    MAX_DATAGRAM,
    Ports,
    announced,
    is_of_swarm,
    parse_announcement,
    require_valid,
)
from shoal.mesh.lan.beacon import CHECKS_PER_S, FIRST_S, FORGET_S, MAX_PEERS, PERIOD_S, Beacon, Heard
from shoal.mesh.lan.discovery import Lan, Surroundings, _ip
from shoal.mesh.lan.sockets import Interface, interfaces
from shoal.mesh.peer_id import PeerId

WALL = 1_700_000_000
KEYS = [PrivateKey(bytes([number, 1]) * 16) for number in range(4)]
IDS = [PeerId(key.public) for key in KEYS]
PORTS = Ports(4000, 5000)


def said(number: int, secret: bytes = b"", asks: bool = False, wall: int = WALL, ports: Ports = PORTS) -> bytes:
    return announced(KEYS[number], secret, ports, wall, asks)


def heard(data: bytes, now: float = 0.0, ip: str = "10.0.0.9") -> Heard:
    return Heard(data, ip, now, WALL + now)


def beacon(secret: bytes = b"") -> Beacon:
    return Beacon(IDS[0], secret, 0.0, random.Random(1))


def test_an_announcement_is_small_signed_and_shows_nothing_of_the_secret() -> None:
    data = said(1, b"s" * 32)
    found = parse_announcement(data)
    require_valid(found, WALL + 5)
    assert len(data) < 250
    assert (found.peer, found.ports, found.wall) == (IDS[1], PORTS, WALL)
    assert is_of_swarm(found, b"s" * 32)
    assert not is_of_swarm(found, b"")
    assert b"ssss" not in data
    assert parse_announcement(said(1, b"s" * 32, wall=WALL + 1)).tag != found.tag
    assert parse_announcement(said(2, b"s" * 32)).tag != found.tag
    for changed in (replace(found, ports=Ports(1, 1)), replace(found, asks=True), replace(found, peer=IDS[2])):
        with pytest.raises(PeerFault, match="signed"):
            require_valid(changed, WALL)
    with pytest.raises(PeerFault, match="old"):
        require_valid(found, WALL + 700)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100) | st.integers(0, 10**6), st.integers(0, 255))
def test_fuzz_any_datagram_is_an_announcement_or_a_fault(noise: bytes | int, byte: int) -> None:
    """Invariant: a typed value or PeerFault; and a changed datagram never tells of a peer."""
    good = said(1)
    data = (
        noise if isinstance(noise, bytes) else good[: noise % len(good)] + bytes([byte]) + good[noise % len(good) + 1 :]
    )
    for attempt in (data, MAGIC + data, MAGIC + encode([data])):
        with contextlib.suppress(PeerFault):
            parse_announcement(attempt)
        if attempt != good:
            assert beacon().hear(heard(attempt)) is None


def test_a_datagram_too_large_is_refused() -> None:
    with pytest.raises(PeerFault):
        parse_announcement(said(1) + bytes(MAX_DATAGRAM))


def test_a_peer_is_news_once_and_again_when_it_moves_or_was_forgotten() -> None:
    one = beacon()
    first = one.hear(heard(said(1)))
    assert first == Address(IDS[1], ("10.0.0.9:4000",), ("10.0.0.9:5000",))
    assert one.hear(heard(said(1, wall=WALL + 1), 1.0)) is None
    second = one.hear(heard(said(1, wall=WALL + 2), 2.0, "fe80::1%3"))
    assert second is not None
    assert second.udp == ("[fe80::1%3]:4000", "10.0.0.9:4000")
    moved = one.hear(heard(said(1, wall=WALL + 3, ports=Ports(4001)), 3.0))
    assert moved == Address(IDS[1], ("10.0.0.9:4001",))
    assert one.hear(heard(said(1, wall=WALL + 2), 4.0)) is None, "older words are no news"
    assert one.peers() == (moved,)
    one.tick(3.0 + FORGET_S)
    assert one.peers() == ()


def test_other_swarms_itself_and_forgeries_are_silent() -> None:
    private = beacon(b"k")
    assert private.hear(heard(said(1))) is None
    assert private.hear(heard(said(0, b"k"))) is None
    assert private.heard_self == 1
    assert private.hear(heard(said(1, b"k", wall=WALL - 5000))) is None
    assert private.num_refused == 1
    assert private.hear(heard(said(1, b"k"))) is not None


def spoken(one: Beacon, until: float, events: dict[float, Heard]) -> list[tuple[float, bool]]:
    """What the beacon says, when, as time passes in steps of 10 ms."""
    found = []
    for step in range(int(until * 100)):
        now = step / 100
        if now in events:
            one.hear(events[now])
        if (asks := one.tick(now)) is not None:
            found.append((now, asks))
    return found


def test_it_speaks_thrice_at_first_then_rarely_and_answers_soon() -> None:
    quiet = spoken(beacon(), 100.0, {})
    times = [at for at, _ in quiet]
    assert times[:3] == list(FIRST_S)
    assert [asks for _, asks in quiet[:2]] == [True, False]
    assert all(0.89 * PERIOD_S < later - earlier < 1.12 * PERIOD_S for earlier, later in itertools.pairwise(times[2:]))
    answered = spoken(beacon(), 30.0, {10.0: heard(said(1, asks=True), 10.0)})
    assert [at for at, _ in answered if 10.0 <= at <= 10.13]


def test_a_flood_of_questions_is_answered_once_a_second_and_checked_within_budget() -> None:
    asked = {step / 100: heard(said(1, asks=True, wall=WALL + step // 100), step / 100) for step in range(500, 1500)}
    flooded = spoken(beacon(), 16.0, asked)
    times = [at for at, _ in flooded]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.999
    one = beacon()
    bad = said(1)[:-1] + bytes([said(1)[-1] ^ 1])
    for _ in range(200):
        one.hear(heard(bad))
    assert one.num_refused == 200
    assert one.hear(heard(said(2))) is None, "the budget of this second is spent"
    assert one.hear(heard(said(2), 1.0)) is not None
    assert CHECKS_PER_S < 200


def test_memory_of_peers_is_bounded() -> None:
    one = beacon()
    for number in range(MAX_PEERS + 10):
        key = PrivateKey(number.to_bytes(32, "big"))
        one.hear(heard(announced(key, b"", PORTS, WALL + number, False), float(number) / 10))
    assert len(one.peers()) == MAX_PEERS


LOOPBACK = Interface("lo", socket.if_nametoindex("lo"), "127.0.0.1")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def meet(where: Interface, secrets: tuple[bytes, ...]) -> tuple[list[set[PeerId]], list[Lan]]:
    """Nodes on one machine; whom each has found once every two of one secret have met, or after five seconds."""
    port, found = free_port(), [set[PeerId]() for _ in secrets]
    news = asyncio.Event()

    def hearer(number: int) -> Callable[[Address], None]:
        def hear(address: Address) -> None:
            assert address.udp[0].endswith(":4000")
            found[number].add(address.peer)
            news.set()

        return hear

    nodes = [
        Lan(Surroundings(KEYS[n], SystemClock(), lambda: PORTS, hearer(n), secret, port, lambda: [where]))
        for n, secret in enumerate(secrets)
    ]
    tasks = [asyncio.ensure_future(node.run()) for node in nodes]
    wanted = sum(secrets.count(secret) - 1 for secret in secrets)
    try:
        async with asyncio.timeout(5):
            while sum(map(len, found)) < wanted:
                news.clear()
                await news.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found, nodes


@pytest.mark.parametrize(
    "where", [LOOPBACK, *[one for one in interfaces() if not one.is_loopback][:2]], ids=lambda one: one.label
)
def test_real_nodes_of_one_machine_meet_those_of_their_swarm(where: Interface) -> None:
    found, nodes = asyncio.run(meet(where, (b"", b"", b"", b"private")))
    assert found == [{IDS[1], IDS[2]}, {IDS[0], IDS[2]}, {IDS[0], IDS[1]}, set()]
    assert nodes[0].problems() == ("LAN discovery is off: this machine has no network interface",), (
        "all sockets are closed"
    )


def test_an_interface_without_multicast_says_so() -> None:
    async def scene() -> tuple[str, ...]:
        lost = Interface("ghost0", 9999, "203.0.113.77")
        lan = Lan(
            Surroundings(KEYS[0], SystemClock(), lambda: PORTS, lambda address: None, b"", free_port(), lambda: [lost])
        )
        task = asyncio.ensure_future(lan.run())
        await asyncio.sleep(0)
        problems = lan.problems()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return problems

    (problem,) = asyncio.run(scene())
    assert "ghost0 (IPv4 203.0.113.77)" in problem
    assert "ticket" in problem


def test_a_link_local_address_keeps_its_interface() -> None:
    assert _ip(("fe80::1", 5353, 0, 3)) == "fe80::1%3"
    assert _ip(("fe80::1%3", 5353, 0, 3)) == "fe80::1%3"
    assert _ip(("fd00::2", 5353, 0, 0)) == "fd00::2"
    assert _ip(("10.0.0.9", 5353)) == "10.0.0.9"
