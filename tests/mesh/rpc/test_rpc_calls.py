"""Calls end to end: answers, errors with the right blame, streams in order, keys, draining."""

from __future__ import annotations

import asyncio

import pytest
from rpc_pairs import ALICE, BOB, Pair, pair, run, settle

from shoal.core.clock import VirtualClock
from shoal.core.errors import (
    ContextTooLong,
    InvalidRequest,
    LinkClosed,
    LocalError,
    ModelNotFound,
    Overloaded,
    PeerFault,
    ShoalError,
    Unavailable,
    Unreachable,
)
from shoal.mesh.calls import MAX_MESSAGE, Body, CallOptions, CallStream, Incoming
from shoal.mesh.carrier import Link
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc import Introduction, Limits, Rpc


async def echo(incoming: Incoming, body: memoryview) -> Body:
    return bytes(body)


async def echo_all(incoming: Incoming, channel: CallStream) -> None:
    async for message in channel:
        await channel.send(message)


def test_a_call_is_answered_and_the_handler_knows_who_asks() -> None:
    seen: list[Incoming] = []

    async def main() -> None:
        async with pair() as both:

            async def handle(incoming: Incoming, body: memoryview) -> Body:
                seen.append(incoming)
                return [b"<", bytearray(body), memoryview(b">")]

            both.bob.unary("wrap", handle)
            assert await both.alice.call(BOB, "wrap", [b"he", memoryview(bytearray(b"llo"))]) == b"<hello>"
            assert (seen[0].peer, seen[0].method, seen[0].deadline) == (ALICE, "wrap", 30.0)
            assert seen[0].link().carrier == "memory"

    run(main())


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, 3_000_000])
def test_every_size_comes_back_as_it_went(size: int) -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("echo", echo)
            body = bytes(range(256)) * (size // 256) + bytes(size % 256)
            assert await both.alice.call(BOB, "echo", body) == body

    run(main())


def test_both_sides_call_over_one_link_at_once() -> None:
    async def main() -> None:
        async with pair() as both:
            both.alice.unary("echo", echo)
            both.bob.unary("echo", echo)
            await both.alice.call(BOB, "echo", b"first")
            asked = [both.alice.call(BOB, "echo", b"%d" % i) for i in range(100)]
            asked += [both.bob.call(ALICE, "echo", b"%d" % i) for i in range(100)]
            answers = await asyncio.gather(*asked)
            assert [bytes(answer) for answer in answers] == [b"%d" % i for i in range(100)] * 2
            assert both.links == 1

    run(main())


FAILURES = [
    InvalidRequest("expected a number", "temperature"),
    InvalidRequest("no", "x", code="my_own_code"),
    ContextTooLong("too long"),
    ModelNotFound("llama", ("smollm2",)),
    Overloaded("full", retry_after_s=2.5),
    Unavailable("loading"),
    Unreachable("nobody", ("dial: refused", "relay: gone")),
    LocalError("broken"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: f"{type(error).__name__}-{error.code}")
def test_an_error_arrives_as_what_it_was(error: ShoalError) -> None:
    async def main() -> None:
        async with pair() as both:

            async def handle(incoming: Incoming, body: memoryview) -> Body:
                raise error

            both.bob.unary("fail", handle)
            with pytest.raises(type(error)) as caught:
                await both.alice.call(BOB, "fail", b"")
            assert type(caught.value) is type(error)
            assert (str(caught.value), caught.value.code) == (str(error), error.code)
            for name in ("param", "retry_after_s", "steps", "name"):
                assert getattr(caught.value, name, None) == getattr(error, name, None)

    run(main())


@pytest.mark.parametrize(
    ("raised", "arrives"), [(PeerFault("you lied"), InvalidRequest), (LinkClosed("my upstream is gone"), LocalError)]
)
def test_what_a_peer_says_of_its_links_is_not_said_of_ours(raised: ShoalError, arrives: type[ShoalError]) -> None:
    async def main() -> None:
        async with pair() as both:

            async def handle(incoming: Incoming, body: memoryview) -> Body:
                raise raised

            both.bob.unary("fail", handle)
            both.bob.unary("echo", echo)
            with pytest.raises(arrives) as caught:
                await both.alice.call(BOB, "fail", b"")
            assert type(caught.value) is arrives
            assert caught.value.code == raised.code
            assert await both.alice.call(BOB, "echo", b"on") == b"on"
            assert both.links == 1

    run(main())


def test_a_bug_in_a_handler_tells_the_caller_nothing_and_the_log_everything(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair() as both:

            async def handle(incoming: Incoming, body: memoryview) -> Body:
                raise KeyError("secret.txt")

            both.bob.unary("fail", handle)
            with pytest.raises(LocalError) as caught:
                await both.alice.call(BOB, "fail", b"")
            assert "secret" not in str(caught.value)
            assert caught.value.code == "internal_error"

    run(main())
    assert "secret.txt" in caplog.text


def test_a_handler_whose_own_work_is_cancelled_still_answers() -> None:
    async def main() -> None:
        async with pair() as both:

            async def handle(incoming: Incoming, body: memoryview) -> Body:
                raise asyncio.CancelledError

            both.bob.unary("fail", handle)
            with pytest.raises(LocalError, match="broken off"):
                await both.alice.call(BOB, "fail", b"")

    run(main())


def test_an_unknown_method_and_a_call_of_the_wrong_shape_say_so() -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("echo", echo)
            with pytest.raises(InvalidRequest, match="answers no 'nothing'"):
                await both.alice.call(BOB, "nothing", b"")
            with pytest.raises(InvalidRequest, match="a single answer"):
                async with both.alice.stream(BOB, "echo") as channel:
                    _ = [message async for message in channel]

    run(main())


def test_a_method_has_one_handler() -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("echo", echo)
            with pytest.raises(ValueError, match="already"):
                both.bob.streaming("echo", echo_all)

    run(main())


def test_a_message_beyond_the_limit_is_refused_before_it_is_sent() -> None:
    class Vast(bytes):
        def __len__(self) -> int:
            return MAX_MESSAGE + 1

    async def main() -> None:
        async with pair() as both:
            both.bob.unary("echo", echo)
            with pytest.raises(InvalidRequest, match="send it in parts"):
                await both.alice.call(BOB, "echo", Vast())

    run(main())


def test_a_stream_keeps_its_order_across_small_and_large_messages() -> None:
    sizes = [3, 100_000, 5, 0, 2_000_000, 7, 40_000, 1] * 4

    async def main() -> None:
        async with pair() as both:
            both.bob.streaming("echo", echo_all)
            async with both.alice.stream(BOB, "echo") as channel:
                sending = asyncio.create_task(send_all(channel))
                got = [len(message) async for message in channel]
                await sending
            assert got == sizes

    async def send_all(channel: CallStream) -> None:
        for size in sizes:
            await channel.send(bytes(size))
        await channel.end()

    run(main())


def test_a_handler_may_end_its_side_and_go_on_reading() -> None:
    heard: list[bytes] = []

    async def main() -> None:
        async with pair() as both:

            async def handle(incoming: Incoming, channel: CallStream) -> None:
                await channel.send(b"only")
                await channel.end()
                heard.extend([bytes(message) async for message in channel])

            both.bob.streaming("half", handle)
            async with both.alice.stream(BOB, "half") as channel:
                assert [bytes(message) async for message in channel] == [b"only"]
                await channel.send(b"still")
                await channel.send(b"here")
                await channel.end()
                await settle()
            assert heard == [b"still", b"here"]
            with pytest.raises(LocalError, match="after the end"):
                await channel.send(b"late")

    run(main())


def test_what_was_sent_before_an_error_is_read_before_the_error() -> None:
    async def main() -> None:
        async with pair() as both:

            async def handle(incoming: Incoming, channel: CallStream) -> None:
                for i in range(3):
                    await channel.send(b"%d" % i)
                raise Unavailable("out of memory")

            both.bob.streaming("some", handle)
            got = list[bytes]()

            async def listen() -> None:
                async with both.alice.stream(BOB, "some") as channel:
                    async for message in channel:
                        got.append(bytes(message))

            with pytest.raises(Unavailable, match="out of memory"):
                await listen()
            assert got == [b"0", b"1", b"2"]

    run(main())


def test_a_reader_that_does_not_read_stops_its_writer_and_nobody_else() -> None:
    sent = 0

    async def main() -> None:
        async with pair(Limits(window_bytes=100_000)) as both:

            async def handle(incoming: Incoming, channel: CallStream) -> None:
                nonlocal sent
                while sent < 1000:
                    await channel.send(bytes(1000))
                    sent += 1

            both.bob.streaming("flood", handle)
            both.bob.unary("echo", echo)
            async with both.alice.stream(BOB, "flood") as channel:
                await settle(400)
                assert sent == 94  # 94 messages of 1,000 + 64 bytes are the first beyond 100,000
                assert await both.alice.call(BOB, "echo", b"meanwhile") == b"meanwhile"
                assert sum([len(message) async for message in channel]) == 1_000_000

    run(main())


class Counted:
    def __init__(self, gate: asyncio.Event | None = None, error: ShoalError | None = None) -> None:
        self.runs, self.gate, self.error = 0, gate, error

    async def __call__(self, incoming: Incoming, body: memoryview) -> Body:
        self.runs += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return b"%d" % self.runs


def test_the_same_key_gives_the_same_answer_for_ten_minutes() -> None:
    async def main() -> None:
        async with pair() as both:
            handler = Counted()
            both.bob.unary("pay", handler)
            for key, expected in ((b"k1", b"1"), (b"k1", b"1"), (b"k2", b"2"), (b"k1", b"1")):
                assert await both.alice.call(BOB, "pay", b"", CallOptions(idempotency_key=key)) == expected
            await both.clock.advance(601)
            assert await both.alice.call(BOB, "pay", b"", CallOptions(idempotency_key=b"k1")) == b"3"

    run(main())


def test_callers_with_one_key_join_one_run() -> None:
    async def main() -> None:
        async with pair() as both:
            gate = asyncio.Event()
            handler = Counted(gate)
            both.bob.unary("pay", handler)
            calls = [
                asyncio.create_task(both.alice.call(BOB, "pay", b"", CallOptions(idempotency_key=b"k"))) for _ in "123"
            ]
            await settle()
            calls[0].cancel()
            await settle()
            gate.set()
            assert [bytes(answer) for answer in await asyncio.gather(*calls[1:])] == [b"1", b"1"]
            assert handler.runs == 1

    run(main())


@pytest.mark.parametrize(("error", "runs"), [(InvalidRequest("never"), 1), (Unavailable("later"), 2)])
def test_an_error_that_cannot_change_is_kept_and_any_other_is_tried_anew(error: ShoalError, runs: int) -> None:
    async def main() -> None:
        async with pair() as both:
            handler = Counted(error=error)
            both.bob.unary("pay", handler)
            for _ in "12":
                with pytest.raises(type(error)):
                    await both.alice.call(BOB, "pay", b"", CallOptions(idempotency_key=b"k"))
            assert handler.runs == runs

    run(main())


def test_a_retry_after_a_lost_link_finds_the_run_it_began() -> None:
    async def main() -> None:
        async with pair() as both:
            gate = asyncio.Event()
            handler = Counted(gate)
            both.bob.unary("pay", handler)
            call = asyncio.create_task(both.alice.call(BOB, "pay", b"", CallOptions(idempotency_key=b"k", retries=1)))
            await settle()
            await both.cut()
            await both.clock.advance(0.2)
            gate.set()
            assert await call == b"1"
            assert (handler.runs, both.links) == (1, 2)

    run(main())


def test_without_retries_a_lost_link_is_an_error_and_retries_need_a_key() -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("pay", Counted(asyncio.Event()))
            call = asyncio.create_task(both.alice.call(BOB, "pay", b""))
            await settle()
            await both.cut()
            with pytest.raises(LinkClosed, match="cut"):
                await call
            with pytest.raises(ValueError, match="idempotency_key"):
                await both.alice.call(BOB, "pay", b"", CallOptions(retries=1))

    run(main())


def test_retries_are_used_up() -> None:
    async def main() -> None:
        async with pair() as both:
            both.is_down = True
            options = CallOptions(idempotency_key=b"k", retries=2)
            call = asyncio.create_task(both.alice.call(BOB, "pay", b"", options))
            await settle()
            await both.clock.advance(0.31)
            with pytest.raises(Unreachable):
                await call

    run(main())


def test_draining_refuses_new_calls_and_lets_the_others_end() -> None:
    async def main() -> None:
        async with pair() as both:
            gate = asyncio.Event()
            both.bob.unary("slow", Counted(gate))
            call = asyncio.create_task(both.alice.call(BOB, "slow", b""))
            await settle()
            draining = asyncio.create_task(both.bob.drain(5))
            await settle()
            with pytest.raises(Unavailable, match="going away"):
                await both.alice.call(BOB, "slow", b"")
            gate.set()
            assert await call == b"1"
            await both.clock.advance(1)
            assert await draining is True

    run(main())


def test_draining_gives_up_in_time() -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("slow", Counted(asyncio.Event()))
            call = asyncio.create_task(both.alice.call(BOB, "slow", b""))
            await settle()
            draining = asyncio.create_task(both.bob.drain(5))
            await settle()
            await both.clock.advance(6)
            assert await draining is False
            call.cancel()

    run(main())


def test_more_calls_than_the_other_side_bears_wait_here() -> None:
    async def main() -> None:
        async with pair(Limits(calls=4, waiting_calls=10)) as both:
            gate = asyncio.Event()
            handler = Counted(gate)
            both.bob.unary("slow", handler)
            calls = [asyncio.create_task(both.alice.call(BOB, "slow", b"")) for _ in range(14)]
            await settle()
            assert handler.runs == 4
            with pytest.raises(Overloaded) as caught:
                await both.alice.call(BOB, "slow", b"")
            assert caught.value.retry_after_s > 0
            gate.set()
            await asyncio.gather(*calls)
            assert handler.runs == 14

    run(main())


def test_urgent_messages_are_written_first() -> None:
    """All but the first, which was alone on the link and is on its way."""
    order: list[bytes] = []

    async def main() -> None:
        async with pair() as both:

            async def note(incoming: Incoming, body: memoryview) -> Body:
                order.append(bytes(body))
                return b""

            both.bob.unary("note", note)
            await both.alice.call(BOB, "note", b"first")
            calls = [both.alice.call(BOB, "note", b"%d" % p, CallOptions(priority=p)) for p in (0, -5, 7, 0, 3)]
            await asyncio.gather(*calls)
            assert order == [b"first", b"0", b"7", b"3", b"0", b"-5"]

    run(main())


def test_conversations_say_who_is_there() -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("echo", echo)
            await both.alice.call(BOB, "echo", b"")
            (found,) = both.alice.conversations()
            assert (found.peer, found.agent, found.version, found.asking) == (BOB, "bob/1", 1, 0)

    run(main())


def test_large_messages_are_accounted_for_and_given_back() -> None:
    async def main() -> None:
        async with pair() as both:
            both.bob.unary("echo", echo)
            both.bob.streaming("echoes", echo_all)
            await both.alice.call(BOB, "echo", bytes(1_000_000))
            async with both.alice.stream(BOB, "echoes") as channel:
                await channel.send(bytes(500_000))
                await settle(200)
                assert both_budgets(both) == [500_000 + 4, 0]
                await channel.end()
                assert [len(message) async for message in channel] == [500_000]
            await settle()
            assert both_budgets(both) == [0, 0]

    run(main())


def both_budgets(both: Pair) -> list[int]:
    """Bytes of large messages that each side still accounts for."""
    sessions = [entry.session for rpc in (both.alice, both.bob) for entry in rpc._entries.values()]
    return [session._budget.used for session in sessions if session is not None]


def test_who_does_not_want_to_wait_for_a_link_need_not() -> None:
    async def main() -> None:
        clock = VirtualClock()

        async def never(peer: PeerId) -> Link:
            await asyncio.Event().wait()
            raise AssertionError

        rpc = Rpc(Introduction(ALICE, "test"), never, clock)
        asking = asyncio.ensure_future(rpc.call(BOB, "echo", b"", CallOptions(timeout_s=60.0, connect_s=2.0)))
        await settle()
        await clock.advance(1.9)
        assert not asking.done()
        await clock.advance(0.2)
        with pytest.raises(Unreachable, match="within 2 s"):
            await asking
        await rpc.close()

    run(main())
