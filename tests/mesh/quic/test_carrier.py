"""The carrier over the real library on the loopback device."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import iroh
import pytest

from shoal.core.errors import BadConfig, LinkClosed, StreamReset, Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.quic.link import QuicLink

KEYS = [PrivateKey(bytes([n]) * 32) for n in range(1, 4)]
Work = Callable[[QuicLink, QuicLink], Awaitable[None]]


def carrier_of(n: int) -> Awaitable[QuicCarrier]:
    return QuicCarrier.start(QuicConfig(KEYS[n], bind="127.0.0.1:0"))


def over_a_link(work: Work) -> None:
    async def run() -> None:
        a, b = await carrier_of(0), await carrier_of(1)
        try:
            dialed, accepted = await asyncio.gather(a.dial(b.address(), 10), b.accept())
            await asyncio.wait_for(work(dialed, accepted), 30)
        finally:
            await a.close()
            await b.close()

    asyncio.run(run())


async def whole(stream: object) -> bytes:
    parts = []
    while chunk := await stream.read(1 << 20):  # type: ignore[attr-defined]
        parts.append(chunk)
    return b"".join(parts)


def test_both_sides_know_whom_they_talk_to_and_how() -> None:
    async def work(a: QuicLink, b: QuicLink) -> None:
        assert (a.peer.key, b.peer.key) == (KEYS[1].public, KEYS[0].public)
        assert (a.info().path, b.info().path) == ("direct", "direct")
        assert (a.info().is_dialer, b.info().is_dialer) == (True, False)
        assert a.info().remote.startswith("127.0.0.1:")
        assert a.info().bytes_sent > 0

    over_a_link(work)


def test_bytes_arrive_whole_in_order_and_end() -> None:
    data = os.urandom(3_000_001)

    async def work(a: QuicLink, b: QuicLink) -> None:
        stream = await a.open()

        async def send() -> None:
            await stream.write(memoryview(data)[:1])
            await stream.write(bytearray(data[1:70_000]))
            await stream.write(data[70_000:])
            await stream.finish()

        sending = asyncio.create_task(send())
        other = await b.accept()
        assert await whole(other) == data
        assert await other.read(1) == b""
        await other.write(b"back")
        await other.finish()
        assert await whole(stream) == b"back"
        await sending

    over_a_link(work)


def test_a_buffer_may_be_changed_once_write_has_returned() -> None:
    async def work(a: QuicLink, b: QuicLink) -> None:
        buffer = bytearray(b"first")
        stream = await a.open()
        await stream.write(buffer)
        buffer[:] = b"wrong"
        await stream.finish()
        assert await whole(await b.accept()) == b"first"

    over_a_link(work)


def test_cancelling_a_read_loses_no_byte() -> None:
    async def work(a: QuicLink, b: QuicLink) -> None:
        stream = await a.open()
        await stream.write(b"1")
        other = await b.accept()
        assert await other.read(9) == b"1"
        got = b""
        for n in range(20):
            reading = asyncio.create_task(other.read(9))
            await asyncio.sleep(0)
            await stream.write(bytes([n]))
            reading.cancel()
            (result,) = await asyncio.gather(reading, return_exceptions=True)
            got += result if isinstance(result, bytes) else b""
        await stream.finish()
        assert got + await whole(other) == bytes(range(20))

    over_a_link(work)


def test_a_slow_reader_slows_its_writer_and_nobody_else() -> None:
    async def work(a: QuicLink, b: QuicLink) -> None:
        stuck = await a.open()
        flood = asyncio.create_task(stuck.write(bytes(64 * 2**20)))
        other = await b.accept()
        await other.read(1)
        lively = await a.open(priority=5)
        await lively.write(b"ping")
        assert await (await b.accept()).read(4) == b"ping"
        assert not flood.done()
        stuck.reset()
        with pytest.raises(StreamReset):
            await flood

    over_a_link(work)


def test_a_reset_reaches_the_other_side_and_spares_the_link() -> None:
    async def work(a: QuicLink, b: QuicLink) -> None:
        stream = await a.open()
        await stream.write(b"x")
        other = await b.accept()
        await other.read(1)
        stream.reset()
        stream.reset()
        with pytest.raises(StreamReset):
            await other.read(1)
        with pytest.raises(StreamReset):
            await stream.read(1)
        again = await b.open()
        await again.write(b"still here")
        assert await (await a.accept()).read(99) == b"still here"

    over_a_link(work)


def test_closing_wakes_everything_and_tells_why() -> None:
    async def work(a: QuicLink, b: QuicLink) -> None:
        mine = await a.open()
        await mine.write(b"x")
        theirs = await b.accept()
        await theirs.read(1)
        waiting = [asyncio.create_task(call) for call in (mine.read(1), theirs.read(1), a.accept(), b.accept())]
        await asyncio.sleep(0)
        await a.close("lunch")
        await a.close("again")
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert type(result) is LinkClosed
        assert "lunch" in await b.closed()
        assert "lunch" in await a.closed()
        for link in (a, b):
            with pytest.raises(LinkClosed):
                await link.open()
        with pytest.raises(LinkClosed):
            await mine.write(b"y")

    over_a_link(work)


def test_closing_the_carrier_ends_its_links_and_its_listening() -> None:
    async def run() -> None:
        a, b = await carrier_of(0), await carrier_of(1)
        link, _ = await asyncio.gather(a.dial(b.address(), 10), b.accept())
        accepting = asyncio.create_task(b.accept())
        await asyncio.sleep(0)
        await b.close()
        await b.close()
        with pytest.raises(LinkClosed):
            await accepting
        assert "stopping" in await asyncio.wait_for(link.closed(), 10)
        with pytest.raises(LinkClosed):
            await b.dial(a.address(), 1)
        await a.close()

    asyncio.run(run())


def test_who_is_dialled_must_hold_the_key() -> None:
    async def run() -> None:
        a, b = await carrier_of(0), await carrier_of(1)
        wrong = Address(PeerId(KEYS[2].public), b.address().udp)
        with pytest.raises(Unreachable) as caught:
            await a.dial(wrong, 0.5)
        assert any(step.startswith(f"udp {b.address().udp[0]}") for step in caught.value.steps)
        await a.close()
        await b.close()

    asyncio.run(run())


def test_nobody_dials_himself_or_nowhere() -> None:
    async def run() -> None:
        a = await carrier_of(0)
        for address in (a.address(), Address(PeerId(KEYS[1].public)), Address(PeerId(KEYS[1].public), ("junk",))):
            with pytest.raises(Unreachable):
                await a.dial(address, 5)
        await a.close()

    asyncio.run(run())


def test_an_external_address_is_told_first_and_taken_back() -> None:
    async def run() -> None:
        a = await carrier_of(0)
        await a.set_external(("192.0.2.7:99",))
        assert a.address().udp[0] == "192.0.2.7:99"
        await a.set_external(())
        assert "192.0.2.7:99" not in a.address().udp
        await a.close()

    asyncio.run(run())


def test_an_arranged_link_is_not_called_direct_unless_it_is_local() -> None:
    async def run() -> None:
        a, b = await carrier_of(0), await carrier_of(1)
        b.expect(a.address().peer, 10)
        dialed, accepted = await asyncio.gather(a.dial_together(b.address(), 10), b.accept())
        assert (dialed.info().path, accepted.info().path) == ("direct", "direct")  # loopback: no NAT between
        await a.close()
        await b.close()

    asyncio.run(run())


@pytest.mark.parametrize("config", [QuicConfig(KEYS[0], bind="nowhere"), QuicConfig(KEYS[0], relays=("gopher://x",))])
def test_a_configuration_that_cannot_be_is_refused(config: QuicConfig) -> None:
    with pytest.raises(BadConfig):
        asyncio.run(QuicCarrier.start(config))


class Knocking:
    """An incoming handshake that never ends, from a place that is proven or not."""

    def __init__(self, where: Any, is_proven: bool = True) -> None:
        self.where, self.is_proven = where, is_proven
        self.outcome = "in progress"

    async def remote_addr_validated(self) -> bool:
        return self.is_proven

    async def remote_addr(self) -> Any:
        return self.where

    async def refuse(self) -> None:
        self.outcome = "refused"

    async def accept(self) -> Any:
        await asyncio.get_running_loop().create_future()


def test_one_site_has_its_part_of_the_handshakes_and_no_more() -> None:
    """From one address all 64 could be held; a spoofed address counts against nobody."""

    async def body() -> None:
        ip, url = iroh.IncomingAddr.IP, iroh.IncomingAddr.RELAY
        groups = [
            [Knocking(ip(f"192.0.2.1:{port}")) for port in range(1, 18)],
            [Knocking(ip(f"[2001:db8::{port}]:5")) for port in range(1, 18)],
            [Knocking(ip(f"192.0.2.9:{port}"), is_proven=False) for port in range(1, 18)],
            [Knocking(url("http://relay.test/", None)) for _ in range(33)],
        ]
        server = await QuicCarrier.start(QuicConfig(PrivateKey.generate(), "127.0.0.1:0"))
        for number, group in enumerate(groups):
            tasks = [asyncio.create_task(server._welcome(knock)) for knock in group]
            for _ in range(5):
                await asyncio.sleep(0)
            refused = [knock.outcome for knock in group].count("refused")
            assert refused == (0 if number == 2 else 1), number
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert not server._knocking
        await server.close()

    asyncio.run(asyncio.wait_for(body(), 20))
