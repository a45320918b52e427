"""The mesh in memory keeps the contract of calls: every call ends once, with the right error."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from shoal.core.clock import VirtualClock
from shoal.core.errors import DeadlineExceeded, InvalidRequest, LinkClosed, LocalError, StreamReset, Unreachable
from shoal.mesh.calls import CallOptions, CallStream, Incoming
from shoal.mesh.fakes import ROOM, LocalMesh, LocalPeer, Weather


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


async def over(clock: VirtualClock, work: Coroutine[Any, Any, Any], seconds: float = 100.0) -> Any:
    """The outcome of `work` while time moves on; an error is returned, not raised."""
    task = asyncio.ensure_future(work)
    for _ in range(20):
        await asyncio.sleep(0)
    await clock.advance(seconds)
    return (await asyncio.gather(task, return_exceptions=True))[0]


CALM = Weather()


def two(weather: Weather = CALM) -> tuple[VirtualClock, LocalMesh, LocalPeer, LocalPeer]:
    clock = VirtualClock()
    mesh = LocalMesh(clock, weather=weather)
    return clock, mesh, mesh.join(), mesh.join()


async def echo(incoming: Incoming, body: memoryview) -> bytes:
    return incoming.peer.key[:2] + bytes(body)


async def forever(incoming: Incoming, body: memoryview) -> bytes:
    await asyncio.get_running_loop().create_future()
    return b""


def test_a_call_carries_the_caller_and_the_body_and_takes_its_time() -> None:
    async def scene() -> None:
        clock, mesh, a, b = two(Weather((0.1, 0.1)))
        b.unary("echo", echo)
        began = clock.monotonic()
        task = asyncio.ensure_future(a.call(b.peer, "echo", [b"x", b"y"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await clock.advance(0.15)
        assert not task.done()
        await clock.advance(0.05)
        assert bytes(await task) == a.peer.key[:2] + b"xy"
        assert clock.monotonic() - began == pytest.approx(0.2)
        assert mesh.num_calls == 1
        assert mesh.size_bytes == 2 + 4

    run(scene())


def test_a_timeout_ends_the_call_and_cancels_the_handler() -> None:
    ended: list[str] = []

    async def slow(incoming: Incoming, body: memoryview) -> bytes:
        assert incoming.deadline == 5.0
        try:
            return await forever(incoming, body)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def scene() -> None:
        clock, _, a, b = two()
        b.unary("slow", slow)
        outcome = await over(clock, a.call(b.peer, "slow", b"", CallOptions(timeout_s=5)))
        assert isinstance(outcome, DeadlineExceeded)

    run(scene())
    assert ended == ["cancelled"]


def test_errors_keep_their_class_and_strangers_lose_their_text() -> None:
    async def refuse(incoming: Incoming, body: memoryview) -> bytes:
        raise InvalidRequest("no", "model")

    async def stumble(incoming: Incoming, body: memoryview) -> bytes:
        raise KeyError("a secret")

    async def scene() -> None:
        clock, _, a, b = two()
        b.unary("refuse", refuse)
        b.unary("stumble", stumble)
        assert isinstance(await over(clock, a.call(b.peer, "refuse", b"")), InvalidRequest)
        error = await over(clock, a.call(b.peer, "stumble", b""))
        assert type(error) is LocalError
        assert "secret" not in str(error)
        assert type(await over(clock, a.call(b.peer, "nothing", b""))) is LocalError

    run(scene())


def test_crash_and_partition_cut_and_heal() -> None:
    async def scene() -> None:
        clock, mesh, a, b = two()
        b.unary("wait", forever)
        b.unary("echo", echo)
        task = asyncio.ensure_future(a.call(b.peer, "wait", b""))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        mesh.crash(b.peer)
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], LinkClosed)
        assert isinstance(await over(clock, a.call(b.peer, "echo", b"")), Unreachable)
        mesh.restore(b.peer)
        mesh.partition([a.peer], [b.peer])
        assert isinstance(await over(clock, a.call(b.peer, "echo", b"")), Unreachable)
        mesh.heal()
        assert bytes(await over(clock, a.call(b.peer, "echo", b"!")))[2:] == b"!"

    run(scene())


def test_a_lost_message_is_a_timeout_and_the_seed_decides_which() -> None:
    async def scene() -> list[bool]:
        clock, _, a, b = two(Weather(loss=0.3))
        b.unary("echo", echo)
        return [isinstance(await over(clock, a.call(b.peer, "echo", b""), 40), DeadlineExceeded) for _ in range(40)]

    lost = run(scene())
    assert 10 < sum(lost) < 30  # 1 - 0.7 ** 2 = 51 %
    assert lost == run(scene())


def test_an_idempotency_key_answers_twice_and_runs_once() -> None:
    async def scene() -> None:
        clock, _, a, b = two()
        ran: list[int] = []

        async def count(incoming: Incoming, body: memoryview) -> bytes:
            ran.append(1)
            return bytes([len(ran)])

        b.unary("count", count)
        options = CallOptions(idempotency_key=b"k", retries=1)
        assert bytes(await over(clock, a.call(b.peer, "count", b"", options), 0)) == b"\1"
        assert bytes(await over(clock, a.call(b.peer, "count", b"", options), 700)) == b"\1"
        assert bytes(await over(clock, a.call(b.peer, "count", b"", options), 0)) == b"\2"
        with pytest.raises(ValueError, match="idempotency"):
            await a.call(b.peer, "count", b"", CallOptions(retries=1))

    run(scene())


def test_streams_echo_end_and_push_back() -> None:
    async def scene() -> None:
        _, _, a, b = two()

        async def double(incoming: Incoming, stream: CallStream) -> None:
            async for message in stream:
                await stream.send(bytes(message) * 2)

        async def deaf(incoming: Incoming, stream: CallStream) -> None:
            await asyncio.get_running_loop().create_future()

        b.streaming("double", double)
        b.streaming("deaf", deaf)
        async with a.stream(b.peer, "double") as stream:
            for text in (b"a", b"b"):
                await stream.send(text)
            await stream.end()
            assert [bytes(message) async for message in stream] == [b"aa", b"bb"]
        async with a.stream(b.peer, "deaf") as stream:
            for _ in range(ROOM):
                await stream.send(b"x")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.send(b"x"), 0.01)

    run(scene())


def test_a_streams_error_and_a_crash_reach_the_caller() -> None:
    async def scene() -> None:
        _, mesh, a, b = two()

        async def refuse(incoming: Incoming, stream: CallStream) -> None:
            await stream.send(b"one")
            raise InvalidRequest("enough", "body")

        async def deaf(incoming: Incoming, stream: CallStream) -> None:
            await asyncio.get_running_loop().create_future()

        b.streaming("refuse", refuse)
        b.streaming("deaf", deaf)
        async with a.stream(b.peer, "refuse") as stream:
            messages = stream.__aiter__()
            assert bytes(await anext(messages)) == b"one"
            with pytest.raises(InvalidRequest):
                await anext(messages)
        async with a.stream(b.peer, "deaf") as stream:
            await asyncio.sleep(0)
            mesh.crash(b.peer)
            with pytest.raises((LinkClosed, StreamReset)):
                await anext(stream.__aiter__())

    run(scene())
