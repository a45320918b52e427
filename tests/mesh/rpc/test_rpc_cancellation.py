"""After a cancellation or a timeout, at any moment, everything is as if the call had never been made."""

from __future__ import annotations

import asyncio

import pytest
from rpc_pairs import BOB, Pair, pair, run, settle

from shoal.core.errors import DeadlineExceeded, LinkClosed
from shoal.mesh.calls import Body, CallOptions, CallStream, Incoming
from shoal.mesh.rpc import Limits


class Hanging:
    """Handlers that wait for ever, and count how they end."""

    def __init__(self) -> None:
        self.began = self.cancelled = 0

    async def unary(self, incoming: Incoming, body: memoryview) -> Body:
        await self._hang()
        return b""

    async def stream(self, incoming: Incoming, channel: CallStream) -> None:
        await self._hang()

    async def _hang(self) -> None:
        self.began += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def check_nothing_is_left(both: Pair) -> None:
    """No call, no place taken, no byte held, no deadline that matters, on either side."""
    for rpc in (both.alice, both.bob):
        assert len(rpc._deadlines) == 0
        assert len(rpc._once) == 0
        for entry in rpc._entries.values():
            session = entry.session
            assert session is not None
            assert (len(session.asking), len(session.serving)) == (0, 0)
            assert session._budget.used == 0
            assert session.asking._places.used == session.asking._stream_places.used == 0


async def check_it_still_works(both: Pair) -> None:
    assert await both.alice.call(BOB, "echo", b"well") == b"well"


async def echo(incoming: Incoming, body: memoryview) -> Body:
    return bytes(body)


def test_a_timeout_ends_the_call_on_both_sides() -> None:
    async def main() -> None:
        async with pair() as both:
            hanging = Hanging()
            both.bob.unary("hang", hanging.unary)
            both.bob.unary("echo", echo)
            call = asyncio.create_task(both.alice.call(BOB, "hang", b"", CallOptions(timeout_s=2)))
            await settle()
            await both.clock.advance(1.9)
            assert not call.done()
            await both.clock.advance(0.2)
            await settle()
            with pytest.raises(DeadlineExceeded, match="hang did not end within 2 s"):
                await call
            assert (hanging.began, hanging.cancelled) == (1, 1)
            check_nothing_is_left(both)
            await check_it_still_works(both)

    run(main())


def test_a_cancelled_caller_cancels_the_handler() -> None:
    async def main() -> None:
        async with pair() as both:
            hanging = Hanging()
            both.bob.unary("hang", hanging.unary)
            both.bob.unary("echo", echo)
            call = asyncio.create_task(both.alice.call(BOB, "hang", b""))
            await settle()
            call.cancel()
            await settle()
            assert call.cancelled()
            assert hanging.cancelled == 1
            check_nothing_is_left(both)
            await check_it_still_works(both)

    run(main())


@pytest.mark.parametrize("turns", range(14))
@pytest.mark.parametrize("size", [10, 100_000, 5_000_000])
def test_a_call_cancelled_at_any_turn_of_the_loop_leaves_nothing(turns: int, size: int) -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("echo", echo)
            await both.alice.call(BOB, "echo", b"")
            call = asyncio.create_task(both.alice.call(BOB, "echo", bytes(size)))
            await settle(turns)
            call.cancel()
            await settle(200)
            check_nothing_is_left(both)
            await check_it_still_works(both)

    run(main())


@pytest.mark.parametrize("turns", range(12))
def test_a_stream_left_at_any_turn_leaves_nothing(turns: int) -> None:
    async def main() -> None:
        async with pair() as both:

            async def echo_all(incoming: Incoming, channel: CallStream) -> None:
                async for message in channel:
                    await channel.send(message)

            both.bob.streaming("echo_all", echo_all)
            both.bob.unary("echo", echo)

            async def talk() -> None:
                async with both.alice.stream(BOB, "echo_all") as channel:
                    while True:
                        await channel.send(bytes(300_000))
                        await channel.send(b"small")

            call = asyncio.create_task(talk())
            await settle(turns * 7)
            call.cancel()
            await settle(300)
            check_nothing_is_left(both)
            await check_it_still_works(both)

    run(main())


def test_leaving_a_stream_cancels_its_handler() -> None:
    async def main() -> None:
        async with pair() as both:
            hanging = Hanging()
            both.bob.streaming("hang", hanging.stream)
            async with both.alice.stream(BOB, "hang") as channel:
                await channel.send(b"there?")
                await settle()
            await settle()
            assert (hanging.began, hanging.cancelled) == (1, 1)
            check_nothing_is_left(both)

    run(main())


def test_a_stream_has_a_deadline_too() -> None:
    async def main() -> None:
        async with pair() as both:
            hanging = Hanging()
            both.bob.streaming("hang", hanging.stream)

            async def talk() -> None:
                async with both.alice.stream(BOB, "hang", CallOptions(timeout_s=3)) as channel:
                    async for _ in channel:
                        pass

            call = asyncio.create_task(talk())
            await settle()
            await both.clock.advance(3.1)
            await settle()
            with pytest.raises(DeadlineExceeded):
                await call
            assert hanging.cancelled == 1
            check_nothing_is_left(both)

    run(main())


def test_a_deadline_passes_while_connecting() -> None:
    async def main() -> None:
        async with pair() as both:

            async def never(peer: object) -> object:
                return await asyncio.Event().wait()

            both.alice._connect = never  # type: ignore[assignment]
            call = asyncio.create_task(both.alice.call(BOB, "echo", b"", CallOptions(timeout_s=1)))
            await settle()
            await both.clock.advance(1.1)
            with pytest.raises(DeadlineExceeded):
                await call

    run(main())


def test_a_call_that_waits_for_a_place_is_cancelled_without_a_trace() -> None:
    async def main() -> None:
        async with pair(Limits(calls=1)) as both:
            hanging = Hanging()
            both.bob.unary("hang", hanging.unary)
            both.bob.unary("echo", echo)
            first = asyncio.create_task(both.alice.call(BOB, "hang", b""))
            second = asyncio.create_task(both.alice.call(BOB, "hang", b"", CallOptions(timeout_s=1)))
            await settle()
            await both.clock.advance(1.1)
            with pytest.raises(DeadlineExceeded):
                await second
            first.cancel()
            await settle()
            assert hanging.began == 1
            check_nothing_is_left(both)
            await check_it_still_works(both)

    run(main())


def test_a_lost_link_cancels_handlers_and_fails_callers() -> None:
    async def main() -> None:
        async with pair() as both:
            hanging = Hanging()
            both.bob.unary("hang", hanging.unary)
            both.bob.streaming("hangs", hanging.stream)
            both.bob.unary("echo", echo)
            call = asyncio.create_task(both.alice.call(BOB, "hang", b""))

            async def talk() -> None:
                async with both.alice.stream(BOB, "hangs") as channel:
                    async for _ in channel:
                        pass

            stream = asyncio.create_task(talk())
            await settle()
            await both.cut()
            for task in (call, stream):
                with pytest.raises(LinkClosed):
                    await task
            assert hanging.cancelled == 2
            await check_it_still_works(both)
            check_nothing_is_left(both)

    run(main())


def test_cancelling_every_caller_of_a_key_cancels_the_run() -> None:
    async def main() -> None:
        async with pair() as both:
            hanging = Hanging()
            both.bob.unary("hang", hanging.unary)
            calls = [
                asyncio.create_task(both.alice.call(BOB, "hang", b"", CallOptions(idempotency_key=b"k"))) for _ in "12"
            ]
            await settle()
            calls[0].cancel()
            await settle()
            assert hanging.cancelled == 0
            calls[1].cancel()
            await settle()
            assert (hanging.began, hanging.cancelled) == (1, 1)
            check_nothing_is_left(both)

    run(main())


def test_a_run_whose_caller_never_comes_back_ends_at_its_deadline() -> None:
    async def main() -> None:
        async with pair() as both:
            hanging = Hanging()
            both.bob.unary("hang", hanging.unary)
            options = CallOptions(idempotency_key=b"k", timeout_s=20)
            call = asyncio.create_task(both.alice.call(BOB, "hang", b"", options))
            await settle()
            await both.cut()
            with pytest.raises(LinkClosed):
                await call
            assert hanging.cancelled == 0
            await both.clock.advance(21)
            await settle()
            assert hanging.cancelled == 1
            check_nothing_is_left(both)

    run(main())


def test_a_deadline_that_fires_as_the_answer_comes_ends_the_call_once() -> None:
    async def main() -> None:
        async with pair() as both:
            gate = asyncio.Event()

            async def gated(incoming: Incoming, body: memoryview) -> Body:
                await gate.wait()
                return b"answer"

            both.bob.unary("gated", gated)
            both.bob.unary("echo", echo)
            for turns in range(12):
                gate.clear()
                call = asyncio.create_task(both.alice.call(BOB, "gated", b"", CallOptions(timeout_s=1)))
                await settle()
                gate.set()
                await settle(turns)
                await both.clock.advance(1)
                await settle()
                (outcome,) = await asyncio.gather(call, return_exceptions=True)
                assert outcome == b"answer" or type(outcome) is DeadlineExceeded
                check_nothing_is_left(both)
            await check_it_still_works(both)

    run(main())
