"""Many identities at once: what each may cost is bounded, and so is what all together cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from rpc_pairs import BOB, Pair, pair, raw_hello, run, settle

from shoal.core.errors import InvalidRequest, ShoalError
from shoal.mesh.calls import Body, CallOptions, Incoming
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc import NODE, Limits, wire
from shoal.mesh.rpc.failures import failure_bytes, parse_failure
from shoal.mesh.rpc.fakes import FakeLink, FakeStream, link_pair
from shoal.mesh.rpc.idempotency import ALL_BYTES, BYTES, Answers
from shoal.mesh.rpc.share import BURST_S, Share, Shares

LARGE = bytes(100_000)


def frame(kind: int, call: int, payload: bytes = b"") -> bytes:
    return wire.HEADER.pack(len(payload), kind, call) + payload


def ask(method: str) -> bytes:
    return wire.ask_head(method, 300.0, 0, b"")


def attach(both: Pair, number: int) -> FakeLink:
    here, there = link_pair(PeerId(number.to_bytes(32, "big")), BOB)
    both.bob.accepted(there)
    return here


async def stranger(both: Pair, number: int) -> tuple[FakeLink, FakeStream]:
    link = attach(both, number)
    return link, await raw_hello(link, PeerId(number.to_bytes(32, "big")))


async def large(incoming: Incoming, body: memoryview) -> Body:
    return LARGE


async def echo(incoming: Incoming, body: memoryview) -> Body:
    return bytes(body)


def test_whoever_says_hello_gets_in_while_others_hold_every_place_in_silence() -> None:
    async def main() -> None:
        async with pair(Limits(hellos=5)) as both:
            both.bob.unary("echo", echo)
            for number in range(20):
                attach(both, number)
                await settle(5)
            assert bytes(await both.alice.call(BOB, "echo", b"fine")) == b"fine"

    run(main())


def test_large_answers_that_nobody_takes_are_bounded_over_all_links_and_not_for_ever() -> None:
    async def main() -> None:
        async with pair(Limits(reply_bytes=1_000_000, reply_s=5.0)) as both:
            both.bob.unary("large", large)
            both.bob.unary("echo", echo)
            streams = [await stranger(both, number) for number in range(8)]
            for _, stream in streams:
                for call in range(1, 21):
                    await stream.write(frame(wire.CALL, call, ask("large")))
            await settle(200)
            assert both.bob._desk.replies.used <= 1_000_000
            assert bytes(await both.alice.call(BOB, "echo", b"small ones pass")) == b"small ones pass"
            await both.clock.advance(7.0)
            await settle(200)
            assert both.bob._desk.replies.used == 0
            assert await both.alice.call(BOB, "large", b"") == LARGE

    run(main())


def test_large_messages_on_their_way_here_are_bounded_over_all_links() -> None:
    async def main() -> None:
        async with pair(Limits(incoming_bytes=400_000, all_incoming_bytes=1_000_000)) as both:
            both.bob.unary("echo", echo)
            links = [(await stranger(both, number))[0] for number in range(8)]
            for link in links:
                bulk = await link.open()
                await bulk.write(wire.HEADER.pack(300_000, wire.CALL, 1) + b"x")
            await settle(50)
            assert both.bob._desk.incoming.used == 900_000
            for link in links:
                await link.close("gone")
            await settle(50)
            assert both.bob._desk.incoming.used == 0
            assert await both.alice.call(BOB, "echo", LARGE) == LARGE

    run(main())


def test_a_message_larger_than_the_node_takes_ends_the_link() -> None:
    async def main() -> None:
        async with pair(replace(NODE, message_bytes=200_000)) as both:
            link, _ = await stranger(both, 1)
            bulk = await link.open()
            await bulk.write(wire.HEADER.pack(300_000, wire.CALL, 1) + b"x")
            assert "at most" in await link.closed()

    run(main())


def test_a_link_that_uses_more_than_its_part_is_left_unread_and_others_are_not() -> None:
    async def main() -> None:
        async with pair(Limits(time_share=1e-6, all_time_share=1e-3)) as both:
            both.bob.unary("echo", echo)
            _, stream = await stranger(both, 1)
            for call in range(1, 40):
                await stream.write(frame(wire.CALL, call, ask("echo")))
                await settle(5)
            answered = both.bob._desk.shares
            assert answered.num_links == 1
            unread = stream._out.size
            assert unread > 0
            await both.clock.advance(4.0)
            await settle(20)
            assert stream._out.size < unread  # later, not never

    run(main())


def test_parts_are_equal_and_what_was_not_used_is_kept_for_a_while() -> None:
    shares = Shares(Limits(time_share=0.25, all_time_share=0.5))
    one = Share(shares, 0.0)
    assert one.rate == 0.25
    others = [Share(shares, 0.0) for _ in range(9)]
    assert one.rate == 0.05
    one.spend(0.25 * BURST_S)
    assert one.pause_s(0.0) == 0.0  # what it had
    one.spend(0.05)
    assert 0.9 < one.pause_s(0.0) < 1.1
    assert one.pause_s(10.0) == 0.0
    for other in others:
        other.leave()
    assert one.rate == 0.25


def test_an_honest_node_is_never_paused_by_the_limits_of_nodes() -> None:
    async def main() -> None:
        async with pair(NODE) as both:
            both.bob.unary("echo", echo)
            answers = [await both.alice.call(BOB, "echo", b"x") for _ in range(500)]
            assert answers == [b"x"] * 500
            assert both.clock.monotonic() == 0.0  # nobody slept

    run(main())


def test_kept_answers_of_all_peers_are_bounded() -> None:
    answers, answer = Answers(), bytes(BYTES // 4)
    for number in range(200):
        for key in range(4):
            answers.put(PeerId(number.to_bytes(32, "big")), "m", bytes([key]), answer, 0.0)
    assert len(answers) * len(answer) <= ALL_BYTES


def test_words_of_a_peer_steer_no_terminal() -> None:
    error: ShoalError = InvalidRequest("\x1b[2J\x1b]0;owned\x07 \u202egnp.exe\nWARNING forged", "a\x1b[31m")
    found = parse_failure(failure_bytes(error))
    assert isinstance(found, InvalidRequest)
    assert str(found) == "\ufffd[2J\ufffd]0;owned\ufffd \ufffdgnp.exe\ufffdWARNING forged"
    assert found.param == "a\ufffd[31m"


def test_an_agent_that_steers_terminals_gets_no_conversation() -> None:
    async def main() -> None:
        async with pair() as both:
            link = attach(both, 1)
            hello = asyncio.create_task(raw_hello(link, PeerId((1).to_bytes(32, "big")), agent="\x1b[2Jshoal"))
            assert "hello" in await link.closed()
            await asyncio.gather(hello, return_exceptions=True)
            assert not both.bob.conversations()

    run(main())


def test_a_call_within_limits_of_nodes_carries_a_large_prompt() -> None:
    async def main() -> None:
        async with pair(NODE) as both:
            both.bob.unary("echo", echo)
            assert await both.alice.call(BOB, "echo", bytes(3_000_000), CallOptions(timeout_s=10)) == bytes(3_000_000)

    run(main())
