"""The contract of `mesh.carrier`, over every carrier there is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from shoal.core.errors import LinkClosed, StreamReset, Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.carrier import Carrier, Link, Stream
from shoal.mesh.peer_id import PeerId

LIMIT_S = 20.0
"""Far above what any step takes: a test that waits this long has failed."""


@asynccontextmanager
async def linked(pair) -> AsyncIterator[tuple[Link, Link, Carrier, Carrier]]:
    async with pair() as (one, other):
        dialed, accepted = await asyncio.gather(one.dial(other.address(), 10), other.accept())
        yield dialed, accepted, one, other


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test()

    asyncio.run(limited())


async def read_all(stream: Stream) -> bytes:
    parts = []
    while part := await stream.read(65_536):
        parts.append(part)
    return b"".join(parts)


async def read_exactly(stream: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await stream.read(size - len(data))
        assert part, f"ended after {len(data)} of {size} bytes"
        data += part
    return data


def test_a_link_knows_who_is_at_its_other_end(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, one, other):
            assert (dialed.peer, accepted.peer) == (other.address().peer, one.address().peer)
            infos = dialed.info(), accepted.info()
            assert [info.is_dialer for info in infos] == [True, False]
            assert {info.carrier for info in infos} == {one.name}
            assert infos[0].path == "direct"

    run(body)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_bytes_arrive_whole_and_in_order_both_ways(pair, size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def send(stream: Stream) -> None:
        dice = random.Random(5)
        start = 0
        while start < len(data):
            step = dice.choice((1, 100, 16_384, 200_000))
            await stream.write(memoryview(data)[start : start + step])
            start += step
        await stream.finish()

    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            mine = await dialed.open()
            await mine.write(b"!")
            theirs = await accepted.accept()
            assert await theirs.read(1) == b"!"
            results = await asyncio.gather(send(mine), send(theirs), read_all(theirs), read_all(mine))
            assert results[2:] == [data, data]

    run(body)


def test_read_gives_what_there_is_and_at_most_what_was_asked_for(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            mine = await dialed.open()
            await mine.write(b"abcdef")
            theirs = await accepted.accept()
            assert await theirs.read(2) == b"ab"
            assert await read_exactly(theirs, 4) == b"cdef"
            await mine.finish()
            assert await theirs.read(10) == b""
            assert await theirs.read(10) == b""

    run(body)


def test_the_buffer_may_be_reused_once_write_returns(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            mine = await dialed.open()
            buffer = bytearray(b"a" * 1000)
            await mine.write(buffer)
            buffer[:] = b"b" * 1000
            await mine.write(buffer)
            await mine.finish()
            assert await read_all(await accepted.accept()) == b"a" * 1000 + b"b" * 1000

    run(body)


def test_either_side_opens_streams_and_a_hundred_run_at_once(pair) -> None:
    async def echo(link: Link) -> None:
        async def answer(stream: Stream) -> None:
            await stream.write(await read_all(stream))
            await stream.finish()

        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(answer(await link.accept()))

    async def ask(link: Link, number: int) -> None:
        stream = await link.open(priority=number % 3)
        data = random.Random(number).randbytes(number * 97 + 1)
        await stream.write(data)
        await stream.finish()
        assert await read_all(stream) == data

    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _), asyncio.TaskGroup() as group:
            for link in (dialed, accepted):
                group.create_task(echo(link))
                for number in range(100):
                    group.create_task(ask(link, number))

    run(body)


def test_a_slow_reader_slows_its_writer_and_no_other_stream(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            slow = await dialed.open()
            written = 0

            async def flood() -> None:
                nonlocal written
                while True:
                    await slow.write(bytes(65_536))
                    written += 65_536

            flooding = asyncio.create_task(flood())
            theirs = await accepted.accept()
            before = -1
            while before != written or not written:
                before = written
                for number in range(20):
                    quick = await dialed.open(priority=1)
                    await quick.write(bytes([number]))
                    await quick.finish()
                    assert await read_all(await accepted.accept()) == bytes([number])
                    quick.reset()
            assert written < 32 * 2**20
            await read_exactly(theirs, written)
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)

    run(body)


def test_a_reset_ends_both_directions_and_leaves_the_link(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            mine = await dialed.open()
            await mine.write(b"x")
            theirs = await accepted.accept()
            reading = asyncio.create_task(mine.read(1))
            await asyncio.sleep(0)
            theirs.reset()
            theirs.reset()
            with pytest.raises(StreamReset):
                await reading
            with pytest.raises(StreamReset):
                await mine.write(b"y")
            with pytest.raises(StreamReset):
                await theirs.read(1)
            after = await dialed.open()
            await after.write(b"z")
            assert await (await accepted.accept()).read(1) == b"z"

    run(body)


def test_a_finished_side_writes_no_more_and_still_reads(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            mine = await dialed.open()
            await mine.write(b"question")
            await mine.finish()
            with pytest.raises(LinkClosed):
                await mine.write(b"more")
            theirs = await accepted.accept()
            assert await read_all(theirs) == b"question"
            await theirs.write(b"answer")
            await theirs.finish()
            assert await read_all(mine) == b"answer"

    run(body)


@pytest.mark.parametrize("closer", ["dialer", "acceptor"])
def test_close_ends_every_pending_call_on_both_sides(pair, closer: str) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            mine = await dialed.open()
            await mine.write(b"x")
            theirs = await accepted.accept()
            quiet = await accepted.open()
            calls = (dialed.accept(), accepted.accept(), quiet.read(9), _flood(mine), _flood(theirs))
            pending = [asyncio.create_task(call) for call in calls]
            reasons = [asyncio.create_task(link.closed()) for link in (dialed, accepted)]
            for _ in range(100):  # turns of the loop, in which every call begins to wait
                await asyncio.sleep(0)
            await (dialed if closer == "dialer" else accepted).close("lunch")
            for result in await asyncio.gather(*pending, return_exceptions=True):
                assert isinstance(result, LinkClosed), result
            assert all("lunch" in reason for reason in await asyncio.gather(*reasons))
            for link in (dialed, accepted):
                with pytest.raises(LinkClosed):
                    await link.open()
                await link.close()

    run(body)


async def _flood(stream: Stream) -> None:
    while True:
        await stream.write(bytes(100_000))


def test_a_closed_carrier_ends_its_links_and_its_waiters(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, one, other):
            accepting = asyncio.create_task(other.accept())
            await asyncio.sleep(0)
            await other.close()
            await other.close()
            with pytest.raises(LinkClosed):
                await accepting
            await asyncio.gather(dialed.closed(), accepted.closed())
            with pytest.raises(Unreachable) as caught:
                await one.dial(other.address() if not other.address().is_empty else one.address(), 0.5)
            assert str(caught.value)

    run(body)


def test_whoever_answers_with_another_key_is_refused(pair) -> None:
    stranger = PeerId(PrivateKey(bytes([9]) * 32).public)

    async def body() -> None:
        async with pair() as (one, other):
            with pytest.raises(Unreachable) as caught:
                await one.dial(replace(other.address(), peer=stranger), 1.0)
            assert stranger.short in str(caught.value)
            assert caught.value.steps

    run(body)


def test_an_address_without_hints_and_ones_own_are_refused_with_a_reason(pair) -> None:
    async def body() -> None:
        async with pair() as (one, other):
            for address in (replace(other.address(), udp=(), tcp=(), relays=()), one.address()):
                with pytest.raises(Unreachable) as caught:
                    await one.dial(address, 0.5)
                assert len(str(caught.value)) > 20

    run(body)


def test_cancelled_calls_leave_no_trace(pair) -> None:
    async def body() -> None:
        async with linked(pair) as (dialed, accepted, _, _):
            mine = await dialed.open()
            await mine.write(b"x")
            theirs = await accepted.accept()
            assert await theirs.read(1) == b"x"
            for call in (theirs.read(1), accepted.accept(), accepted.closed()):
                task = asyncio.create_task(call)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await mine.write(b"y")
            assert await theirs.read(1) == b"y"
            second = await dialed.open()
            await second.write(b"2")
            assert await (await accepted.accept()).read(1) == b"2"

    run(body)


def test_a_cancelled_dial_gives_nobody_a_link_that_works(pair) -> None:
    async def body() -> None:
        async with pair() as (one, other):
            for turns in range(0, 12, 3):
                dialing = asyncio.create_task(one.dial(other.address(), 10))
                for _ in range(turns):
                    await asyncio.sleep(0)
                dialing.cancel()
                link = (await asyncio.gather(dialing, return_exceptions=True))[0]
                if not isinstance(link, BaseException):
                    await link.close()
            good = await one.dial(other.address(), 10)
            stream = await good.open()
            await stream.write(b"hello")
            while True:
                try:
                    accepted = await other.accept()
                    assert await (await accepted.accept()).read(5) == b"hello"
                    return
                except LinkClosed:
                    continue

    run(body)


def test_nothing_is_left_running_after_both_carriers_are_closed(pair) -> None:
    async def body() -> None:
        before = asyncio.all_tasks()
        async with linked(pair) as (dialed, accepted, one, other):
            stream = await dialed.open()
            await stream.write(b"x")
            await accepted.accept()
            await one.close()
            await other.close()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if asyncio.all_tasks() == before:
                return
        assert asyncio.all_tasks() == before

    run(body)
