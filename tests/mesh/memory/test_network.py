"""The simulated network does what real ones do: NATs, delay, loss, partitions, relays, twice the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from shoal.core.clock import VirtualClock
from shoal.core.errors import LinkClosed, Unreachable
from shoal.mesh.memory import Conditions, MemoryCarrier, Network
from shoal.mesh.peer_id import PeerId

T = TypeVar("T")
KINDS = ("none", "full_cone", "port_restricted", "symmetric", "udp_blocked")


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def simulate(clock: VirtualClock, work: Coroutine[Any, Any, T], limit_s: float = 120.0) -> T:
    """Run `work` with time moving on whenever it waits."""

    async def drive() -> T:
        task = asyncio.create_task(work)
        while not task.done():
            assert clock.monotonic() < limit_s, "still waiting"
            await clock.advance(0.01)
        return await task

    return asyncio.run(drive())


async def dialed(one: MemoryCarrier, other: MemoryCarrier, timeout_s: float = 5.0) -> str:
    """The path of a link that carried a byte each way, or "unreachable"."""
    try:
        link = await one.dial(other.address(), timeout_s)
    except Unreachable:
        return "unreachable"
    accepted = await other.accept()
    mine = await link.open()
    await mine.write(b"a")
    theirs = await accepted.accept()
    await theirs.write(await theirs.read(1))
    assert await mine.read(1) == b"a"
    assert (link.peer, accepted.peer) == (other.peer, one.peer)
    return link.info().path


def expected(one: str, other: str, has_relay: bool) -> str:
    """What theory says of a dial from a host behind `one` to one behind `other`."""
    if one != "udp_blocked" and other in ("none", "full_cone"):
        return "direct"
    if not has_relay:
        return "unreachable"
    kinds = {one, other}
    cannot = "udp_blocked" in kinds or kinds == {"symmetric"} or kinds == {"symmetric", "port_restricted"}
    return "relayed" if cannot else "punched"


@pytest.mark.parametrize("has_relay", [False, True])
@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_every_pair_of_nats_ends_as_theory_says(one, other, has_relay: bool) -> None:
    clock = VirtualClock()
    network = Network(clock, conditions=Conditions(delay_s=0.02))
    relays = (network.relay(network.host("relay")),) if has_relay else ()

    async def work() -> str:
        first = MemoryCarrier(network, network.host("a", one), peer(1), relays)
        second = MemoryCarrier(network, network.host("b", other), peer(2), relays)
        return await dialed(first, second)

    assert simulate(clock, work()) == expected(one, other, has_relay)


def test_two_that_dial_each_other_at_once_open_both_nats_without_a_relay() -> None:
    clock = VirtualClock()
    network = Network(clock, conditions=Conditions(delay_s=0.05))

    async def work() -> set[str]:
        one = MemoryCarrier(network, network.host("a", "port_restricted"), peer(1))
        two = MemoryCarrier(network, network.host("b", "port_restricted"), peer(2))
        links = await asyncio.gather(one.dial(two.address(), 5), two.dial(one.address(), 5))
        return {link.info().path for link in links}

    assert simulate(clock, work()) == {"punched"}


def test_neighbours_behind_one_nat_meet_on_their_lan() -> None:
    clock = VirtualClock()
    network = Network(clock)

    async def work() -> str:
        home = network.host("a", "symmetric")
        return await dialed(
            MemoryCarrier(network, home, peer(1)), MemoryCarrier(network, network.host("b", beside=home), peer(2))
        )

    assert simulate(clock, work()) == "direct"


def test_a_failed_dial_names_every_endpoint_and_relay() -> None:
    clock = VirtualClock()
    network = Network(clock)
    url = network.relay(network.host("relay"))

    async def work() -> tuple[str, ...]:
        one = MemoryCarrier(network, network.host("a"), peer(1))
        two = MemoryCarrier(network, network.host("b", "port_restricted"), peer(2), (url,))
        address = two.address()
        await two.close()
        with pytest.raises(Unreachable) as caught:
            await one.dial(address, 3)
        return caught.value.steps

    steps = simulate(clock, work())
    assert [step.split(":")[0] for step in steps] == ["udp 44.0.0.3", "udp 10.0.0.3", "relay memory"]
    assert "no answer within 3 s" in steps[0]
    assert "not connected to it" in steps[2]


def timed_transfer(conditions: Conditions, size: int, seed: int) -> tuple[float, int]:
    """Virtual seconds until `size` bytes arrived, and packets lost."""
    clock = VirtualClock()
    network = Network(clock, seed, conditions)

    async def work() -> tuple[float, int]:
        one = MemoryCarrier(network, network.host("a"), peer(1))
        two = MemoryCarrier(network, network.host("b"), peer(2))
        link = await one.dial(two.address(), 5)
        accepted = await two.accept()
        started = clock.monotonic()
        stream = await link.open()
        data = bytes(range(256)) * (size // 256)
        writing = asyncio.create_task(stream.write(data))
        theirs = await accepted.accept()
        received = b""
        while len(received) < size:
            received += await theirs.read(65_536)
        assert received == data
        await writing
        return clock.monotonic() - started, link.info().lost_packets

    return simulate(clock, work(), 1e6)


def test_bandwidth_and_delay_cost_what_they_say() -> None:
    seconds, _ = timed_transfer(Conditions(delay_s=0.1, bytes_per_s=1e6), 2_048_000, 1)
    assert (
        2.1 <= seconds <= 2.6
    )  # 2.05 s of sending and 0.1 s of delay; the window of 256 KiB covers 0.2 s of round trip


def test_loss_costs_time_never_bytes_and_a_seed_decides_it() -> None:
    lossy = Conditions(delay_s=0.02, loss=0.2)
    first, again, other = (timed_transfer(lossy, 1_024_000, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[1] > 5
    assert first[0] > timed_transfer(Conditions(delay_s=0.02), 1_024_000, 1)[0]


def test_high_priority_passes_a_transfer_that_waits_for_bandwidth() -> None:
    clock = VirtualClock()
    network = Network(clock, conditions=Conditions(bytes_per_s=1e6))

    async def work() -> float:
        one = MemoryCarrier(network, network.host("a"), peer(1))
        two = MemoryCarrier(network, network.host("b"), peer(2))
        link = await one.dial(two.address(), 5)
        accepted = await two.accept()
        bulk = await link.open()
        writing = asyncio.create_task(bulk.write(bytes(250_000)))
        await accepted.accept()
        small = await link.open(priority=1)
        started = clock.monotonic()
        await small.write(b"token")
        await (await accepted.accept()).read(5)
        writing.cancel()
        return clock.monotonic() - started

    assert simulate(clock, work()) < 0.05  # the transfer alone would take 0.25 s


@pytest.mark.parametrize("how", ["partition", "crash"])
def test_silence_ends_a_link_and_says_so(how: str) -> None:
    clock = VirtualClock()
    network = Network(clock)

    async def work() -> tuple[str, float]:
        one = MemoryCarrier(network, network.host("a"), peer(1))
        host = network.host("b")
        two = MemoryCarrier(network, host, peer(2))
        link = await one.dial(two.address(), 5)
        await two.accept()
        started = clock.monotonic()
        if how == "crash":
            network.crash(host)
            with pytest.raises(LinkClosed, match="crashed"):
                await two.accept()
        else:
            network.partition([host])
        return await link.closed(), clock.monotonic() - started

    reason, seconds = simulate(clock, work())
    assert reason == "nothing heard for 15 s"
    assert 15 <= seconds < 15.1


def test_a_partition_that_heals_in_time_loses_nothing() -> None:
    clock = VirtualClock()
    network = Network(clock)

    async def work() -> bytes:
        one = MemoryCarrier(network, network.host("a"), peer(1))
        two = MemoryCarrier(network, network.host("b"), peer(2))
        link = await one.dial(two.address(), 5)
        accepted = await two.accept()
        stream = await link.open()
        network.partition([one.host])
        await stream.write(b"before ")
        await clock.sleep(10)
        network.heal()
        await stream.write(b"after")
        await stream.finish()
        theirs = await accepted.accept()
        await clock.sleep(20)
        return await theirs.read(7) + await theirs.read(9) + await theirs.read(9)

    assert simulate(clock, work()) == b"before after"


def test_a_killed_relay_ends_what_it_carried() -> None:
    clock = VirtualClock()
    network = Network(clock)
    middle = network.host("relay")
    url = network.relay(middle)

    async def work() -> str:
        one = MemoryCarrier(network, network.host("a", "symmetric"), peer(1), (url,))
        two = MemoryCarrier(network, network.host("b", "symmetric"), peer(2), (url,))
        link = await one.dial(two.address(), 5)
        assert link.info().path == "relayed"
        assert link.info().remote == url
        network.crash(middle)
        return await link.closed()

    assert "nothing heard" in simulate(clock, work())


def test_a_thousand_hosts_in_a_ring_pass_a_message_around() -> None:
    clock = VirtualClock()
    network = Network(clock, conditions=Conditions(delay_s=0.01))
    count = 1000

    async def work() -> int:
        carriers = [MemoryCarrier(network, network.host(str(n)), peer(n)) for n in range(count)]

        async def one(number: int) -> int:
            link = await carriers[number].dial(carriers[(number + 1) % count].address(), 5)
            stream = await link.open()
            await stream.write(number.to_bytes(4, "big"))
            theirs = await (await carriers[number].accept()).accept()
            return int.from_bytes(await theirs.read(4), "big")

        return sum(await asyncio.gather(*map(one, range(count))))

    assert simulate(clock, work()) == count * (count - 1) // 2
