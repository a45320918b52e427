"""Calls over every carrier there is: the same calls, the same answers, and bulk that delays no small call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from shoal.core.clock import SystemClock
from shoal.core.errors import LinkClosed
from shoal.crypto.keys import PrivateKey
from shoal.mesh.calls import Body, CallOptions, CallStream, Incoming
from shoal.mesh.carrier import Carrier, Link
from shoal.mesh.memory import MemoryCarrier, Network
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.rpc import Introduction, Rpc
from shoal.mesh.tcp import TcpOptions, listen_tcp

KEYS = PrivateKey(b"\1" * 32), PrivateKey(b"\2" * 32)
ALICE, BOB = (PeerId(key.public) for key in KEYS)
OPTIONS = CallOptions(timeout_s=20)


async def carriers(kind: str) -> list[Carrier]:
    if kind == "tcp":
        return [await listen_tcp(key, TcpOptions(listen=("127.0.0.1:0",))) for key in KEYS]
    if kind == "quic":
        return [await QuicCarrier.start(QuicConfig(key, bind="127.0.0.1:0")) for key in KEYS]
    network = Network(SystemClock())
    return [MemoryCarrier(network, network.host(str(peer)), peer) for peer in (ALICE, BOB)]


@dataclass
class Ends:
    alice: Rpc
    bob: Rpc
    link: Link


@asynccontextmanager
async def ends(kind: str) -> AsyncIterator[Ends]:
    ours, theirs = await carriers(kind)
    link, accepted = await asyncio.gather(ours.dial(theirs.address(), 10.0), theirs.accept())

    async def connect(peer: PeerId) -> Link:
        return link if peer == BOB else accepted

    pair = Ends(*(Rpc(Introduction(me, "test"), connect, SystemClock()) for me in (ALICE, BOB)), link)
    pair.bob.accepted(accepted)
    pair.bob.unary("echo", echo)
    pair.bob.unary("hang", hang)
    pair.bob.streaming("echo_all", echo_all)
    try:
        yield pair
    finally:
        for rpc in (pair.alice, pair.bob):
            await rpc.close()
        for carrier in (ours, theirs):
            await carrier.close()


async def echo(incoming: Incoming, body: memoryview) -> Body:
    return body


async def hang(incoming: Incoming, body: memoryview) -> Body:
    return await asyncio.Event().wait() and b""


async def echo_all(incoming: Incoming, channel: CallStream) -> None:
    async for message in channel:
        await channel.send(message)


@pytest.mark.parametrize("kind", ["memory", "tcp", "quic"])
def test_every_kind_of_call_over_every_carrier(kind: str) -> None:
    async def main() -> None:
        async with ends(kind) as pair:
            for size in (0, 128, 40_000, 3_000_000):
                body = bytes(range(250)) * (size // 250) + bytes(size % 250)
                assert await pair.alice.call(BOB, "echo", body, OPTIONS) == body
            answers = await asyncio.gather(*(pair.alice.call(BOB, "echo", b"%d" % i, OPTIONS) for i in range(300)))
            assert [bytes(answer) for answer in answers] == [b"%d" % i for i in range(300)]
            sizes = [5, 200_000, 0, 70_000, 9]
            async with pair.alice.stream(BOB, "echo_all", OPTIONS) as channel:
                for size in sizes:
                    await channel.send(bytes(size))
                await channel.end()
                assert [len(message) async for message in channel] == sizes

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("kind", ["memory", "tcp", "quic"])
def test_small_calls_pass_a_large_one(kind: str) -> None:
    async def main() -> None:
        async with ends(kind) as pair:
            await pair.alice.call(BOB, "echo", b"", OPTIONS)
            large = asyncio.create_task(pair.alice.call(BOB, "echo", bytes(30_000_000), OPTIONS))
            small = 0
            while not large.done() and small < 20:
                await pair.alice.call(BOB, "echo", b"token", OPTIONS)
                small += 1
            assert small >= 5
            assert len(await large) == 30_000_000

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("kind", ["memory", "tcp", "quic"])
def test_a_link_that_ends_fails_what_runs_over_it(kind: str) -> None:
    async def main() -> None:
        async with ends(kind) as pair:
            await pair.alice.call(BOB, "echo", b"", OPTIONS)
            call = asyncio.create_task(pair.alice.call(BOB, "hang", b"", OPTIONS))
            await pair.alice.call(BOB, "echo", b"", OPTIONS)
            await pair.link.close("enough")
            with pytest.raises(LinkClosed):
                await call

    asyncio.run(asyncio.wait_for(main(), 60))
