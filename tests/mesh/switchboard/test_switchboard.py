"""One link per peer under dials from both sides, failures, limits and time. Virtual clock, simulated network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from shoal.core.clock import SystemClock, VirtualClock
from shoal.core.errors import LinkClosed, Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.carrier import NO_FAREWELL
from shoal.mesh.memory import Conditions, MemoryCarrier, Network
from shoal.mesh.peer_id import PeerId
from shoal.mesh.switchboard import Limits, Switchboard
from shoal.mesh.switchboard.switchboard import FORGET_S, MAX_TRIES
from shoal.mesh.tcp import TcpOptions, listen_tcp

T = TypeVar("T")


def simulate(clock: VirtualClock, work: Coroutine[Any, Any, T], limit_s: float = 2000.0) -> T:
    async def drive() -> T:
        task = asyncio.create_task(work)
        while not task.done():
            assert clock.monotonic() < limit_s, "still waiting"
            await clock.advance(0.05)
        return await task

    return asyncio.run(drive())


class World:
    """Switchboards on hosts of one simulated network."""

    def __init__(self, conditions: Conditions | None = None, limits: Limits | None = None) -> None:
        self.clock = VirtualClock()
        self.network = Network(self.clock, conditions=conditions or Conditions(delay_s=0.01))
        self.limits = limits or Limits()
        self.relays: tuple[str, ...] = ()

    def board(self, number: int, nat: Any = "none") -> Switchboard:
        peer = PeerId(bytes([number]) * 32)
        carrier = MemoryCarrier(self.network, self.network.host(str(number), nat), peer, self.relays)
        board = Switchboard(peer, [carrier], self.clock, self.limits)
        board.start()
        return board


def test_all_who_ask_share_one_dial_and_one_link() -> None:
    world = World()

    async def work() -> None:
        one, two = world.board(1), world.board(2)
        arrived = []
        two.on_link = arrived.append
        one.learn(two.address(), "ticket")
        links = await asyncio.gather(*(one.link(two.me) for _ in range(20)))
        assert len(set(map(id, links))) == 1
        assert await one.link(two.me) is links[0]
        await world.clock.sleep(1)
        assert [link.peer for link in arrived] == [one.me]
        assert await two.link(one.me) is arrived[0]  # the dialled side uses the same link
        await one.close()
        await two.close()

    simulate(world.clock, work())


def test_dials_from_both_sides_settle_on_one_link_and_drop_nothing() -> None:
    world = World()

    async def work() -> None:
        one, two = world.board(1), world.board(2)
        one.learn(two.address(), "ticket")
        two.learn(one.address(), "ticket")
        first, second = await asyncio.gather(one.link(two.me), two.link(one.me))
        await world.clock.sleep(1)
        kept = await one.link(two.me)
        assert (await two.link(one.me)).other is kept
        surplus = [link for link in (first, second.other) if link is not kept]
        busy = {id(link) for link in surplus}
        one.is_busy = lambda link: id(link) in busy
        await world.clock.sleep(60)
        assert [report.others for report in one.snapshot()] == [len(surplus)]
        busy.clear()
        await world.clock.sleep(20)
        assert [report.others for report in (*one.snapshot(), *two.snapshot())] == [0, 0]
        assert kept.info().is_dialer  # the dial of the smaller id
        stream = await kept.open()
        await stream.write(b"still here")
        await one.close()
        await two.close()

    simulate(world.clock, work())


def test_a_death_that_one_link_tells_of_ends_the_others() -> None:
    """A killed process: TCP ended at once, but a QUIC link beside it was used for half a minute more."""
    world = World()

    async def work() -> None:
        one, two = world.board(1), world.board(2)
        one.learn(two.address(), "ticket")
        two.learn(one.address(), "ticket")
        first, second = await asyncio.gather(one.link(two.me), two.link(one.me))
        links = [first, second.other]
        await world.clock.sleep(1)
        lost: list[PeerId] = []
        one.on_lost = lost.append
        links[0].fail(f"{NO_FAREWELL}: the other side stopped")
        assert "without a farewell" in await links[1].closed()
        await world.clock.sleep(0.1)
        assert lost == [two.me]
        assert one.is_doubtful(two.me)
        await one.close()
        await two.close()

    simulate(world.clock, work())


def test_a_peer_that_cannot_be_reached_is_explained_and_not_dialled_in_a_storm() -> None:
    world = World()

    async def work() -> None:
        one = world.board(1)
        gone = PeerId(bytes([9]) * 32)
        with pytest.raises(Unreachable, match="no address is known"):
            await one.link(gone)
        one.learn(Address(gone, udp=("44.9.9.9:4000",)), "dht")
        with pytest.raises(Unreachable, match=r"udp 44.9.9.9:4000: no answer within 15 s"):
            await one.link(gone)
        with pytest.raises(Unreachable, match="next try in"):
            await one.link(gone)
        (report,) = one.snapshot()
        assert (report.phase, report.failures, report.source, report.link) == ("backoff", 1, "dht", None)
        assert report.steps[0].took_s == pytest.approx(15, abs=0.3)
        assert 0 < report.retry_in_s < 1
        await world.clock.sleep(1)
        with pytest.raises(Unreachable, match="try 2"):
            await one.link(gone)
        one.learn(Address(gone, udp=("44.9.9.8:4000",)), "lan")
        with pytest.raises(Unreachable, match=r"44\.9\.9\.8"):
            await one.link(gone)
        with pytest.raises(Unreachable, match="itself"):
            await one.link(one.me)
        await one.close()
        with pytest.raises(LinkClosed):
            await one.link(gone)

    simulate(world.clock, work())


def test_a_kept_peer_is_found_again_after_a_partition() -> None:
    world = World()

    async def work() -> None:
        one, two = world.board(1), world.board(2)
        one.learn(two.address(), "ticket")
        one.keep(two.me)
        lost: list[PeerId] = []
        one.on_lost = lost.append
        assert not one.is_doubtful(two.me)
        await world.clock.sleep(3)
        assert one.snapshot()[0].phase == "connected"
        host = world.network._hosts["44.0.0.2"][0]
        world.network.partition([host])
        await world.clock.sleep(60)
        (report,) = one.snapshot()
        assert report.link is None
        assert report.last_end == "nothing heard for 15 s"
        assert report.failures >= 1
        assert lost == [two.me]
        assert one.is_doubtful(two.me)
        world.network.heal()
        await world.clock.sleep(80)
        assert one.snapshot()[0].phase == "connected"
        assert not one.is_doubtful(two.me)
        await one.close()
        await two.close()

    simulate(world.clock, work())


def test_a_kept_peer_that_never_comes_back_is_let_go_and_forgotten() -> None:
    world = World()

    async def work() -> None:
        one, two = world.board(1), world.board(2)
        one.learn(two.address(), "lan")
        one.keep(two.me)
        await world.clock.sleep(3)
        await two.close()
        world.network.partition([world.network._hosts["44.0.0.2"][0]])
        await world.clock.sleep(300)
        assert one.snapshot()[0].is_kept
        while one.snapshot()[0].is_kept:
            await world.clock.sleep(10)
        assert one.snapshot()[0].failures == MAX_TRIES
        await world.clock.sleep(FORGET_S)
        assert one.snapshot() == ()
        await one.close()

    simulate(world.clock, work())


def test_an_idle_link_is_closed_unless_it_is_busy_or_kept() -> None:
    world = World(limits=Limits(idle_s=30))

    async def work() -> None:
        one, others = world.board(1), [world.board(number) for number in (2, 3, 4)]
        for other in others:
            one.learn(other.address(), "ticket")
            other.is_busy = lambda link: True
        idle, busy, kept = [await one.link(other.me) for other in others]
        one.is_busy = lambda link: link is busy
        one.keep(kept.peer)
        await world.clock.sleep(40)
        assert "idle for 30 s" in await idle.closed()
        assert await one.link(busy.peer) is busy
        assert await one.link(kept.peer) is kept
        for board in (one, *others):
            await board.close()

    simulate(world.clock, work())


def test_a_relayed_link_is_replaced_once_a_direct_one_can_be_had() -> None:
    world = World()
    world.relays = (world.network.relay(world.network.host("relay")),)

    async def work() -> None:
        one, two = world.board(1), world.board(2)
        hosts = [world.network._hosts[ip][0] for ip in ("44.0.0.2", "44.0.0.3")]
        world.network.between(*hosts, Conditions(loss=1.0))
        one.learn(two.address(), "ticket")
        relayed = await one.link(two.me)
        assert relayed.info().path == "relayed"
        world.network.between(*hosts, Conditions())
        await world.clock.sleep(150)
        assert (await one.link(two.me)).info().path == "direct"
        assert "another link" in await relayed.closed()
        await one.close()
        await two.close()

    simulate(world.clock, work())


def test_one_peer_cannot_take_all_links_nor_lock_itself_out() -> None:
    """A peer that restarted left links that look alive; its new ones were refused for as long."""
    world = World(limits=Limits(links_per_peer=2))

    async def work() -> None:
        two = world.board(2)
        host = world.network.host("greedy")
        greedy = MemoryCarrier(world.network, host, PeerId(bytes([7]) * 32))
        links = [await greedy.dial(two.address(), 5) for _ in range(3)]
        assert "2 are the most" in await links[0].closed()
        assert two.snapshot()[0].link is not None
        assert two.snapshot()[0].others <= 1
        await two.close()

    simulate(world.clock, work())


def test_one_who_gives_up_waiting_leaves_the_dial_to_the_others() -> None:
    world = World()

    async def work() -> None:
        one, two = world.board(1), world.board(2)
        one.learn(two.address(), "ticket")
        hasty, patient = (asyncio.create_task(one.link(two.me)) for _ in range(2))
        await asyncio.sleep(0)
        hasty.cancel()
        assert (await patient).peer == two.me
        await one.close()
        await two.close()

    simulate(world.clock, work())


def test_where_one_carrier_fails_the_next_is_used_and_the_report_says_why() -> None:
    """Real sockets: TCP is refused, the simulated network answers."""

    async def work() -> None:
        clock = SystemClock()
        network = Network(clock)
        keys = [PrivateKey(bytes([number]) * 32) for number in (1, 2)]
        peers = [PeerId(key.public) for key in keys]
        tcp = await listen_tcp(keys[0], TcpOptions(listen=()))
        memory = [MemoryCarrier(network, network.host(str(number)), peers[number]) for number in range(2)]
        one, two = Switchboard(peers[0], [tcp, memory[0]], clock), Switchboard(peers[1], [memory[1]], clock)
        one.start()
        two.start()
        one.learn(Address(peers[1], udp=memory[1].address().udp, tcp=("127.0.0.1:1",)), "ticket")
        assert (await one.link(peers[1])).info().carrier == "memory"
        await asyncio.sleep(0)
        (report,) = one.snapshot()
        assert report.link is not None
        await asyncio.gather(*one._dials.values())
        assert "tcp 127.0.0.1:1: refused" in one.snapshot()[0].steps[0].what
        await one.close()
        await two.close()
        await tcp.close()

    asyncio.run(work())


def test_two_boards_that_dial_each_other_over_tcp_can_talk() -> None:
    async def work() -> None:
        clock = SystemClock()
        keys = [PrivateKey(bytes([number]) * 32) for number in (1, 2)]
        carriers = [await listen_tcp(key, TcpOptions(listen=("127.0.0.1:0",))) for key in keys]
        boards = [
            Switchboard(PeerId(key.public), [carrier], clock) for key, carrier in zip(keys, carriers, strict=True)
        ]
        streams: asyncio.Queue[Any] = asyncio.Queue()
        tasks = []

        async def accept(link: Any) -> None:
            await streams.put(await link.accept())

        boards[1].on_link = lambda link: tasks.append(asyncio.create_task(accept(link)))
        for board, other in (boards, boards[::-1]):
            board.start()
            board.learn(other.address(), "ticket")
        await asyncio.gather(boards[0].link(boards[1].me), boards[1].link(boards[0].me))
        mine = await boards[0].link(boards[1].me)
        stream = await mine.open()
        await stream.write(b"hello")
        theirs = await streams.get()  # whichever of the two links the first board has chosen by now
        assert await theirs.read(5) == b"hello"
        for board, carrier in zip(boards, carriers, strict=True):
            await board.close()
            await carrier.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def limited() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(limited())
