"""A peer that does its worst: it is told why and cut off, or bounded; others never notice."""

from __future__ import annotations

import asyncio
import hmac

import pytest
from rpc_pairs import ALICE, BOB, Pair, pair, raw_hello, run, settle

from shoal.core.encoding import encode
from shoal.core.errors import Unauthorized, Unreachable, Unsupported
from shoal.mesh.calls import Body, CallStream, Incoming
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc import Introduction, Limits, wire
from shoal.mesh.rpc.fakes import FakeLink, FakeStream, link_pair
from shoal.mesh.rpc.hello import Handshake, Hello
from shoal.mesh.rpc.limits import LANE_FLOOD_BYTES

MALLORY = PeerId(b"m" * 32)


def frame(kind: int, call: int, payload: bytes = b"") -> bytes:
    return wire.HEADER.pack(len(payload), kind, call) + payload


def ask(method: str, body: bytes = b"") -> bytes:
    return wire.ask_head(method, 30.0, 0, b"") + body


async def hang(incoming: Incoming, body: memoryview) -> Body:
    return await asyncio.Event().wait() and b""


async def echo(incoming: Incoming, body: memoryview) -> Body:
    return bytes(body)


async def listen(incoming: Incoming, channel: CallStream) -> None:
    await asyncio.Event().wait()


def attach(both: Pair) -> FakeLink:
    """A link from mallory to bob."""
    here, there = link_pair(MALLORY, BOB)
    both.bob.accepted(there)
    return here


async def check_cut_off(both: Pair, link: FakeLink, why: str) -> None:
    """The link closed for that reason, bob has nothing left of it, and still answers alice."""
    assert why in await link.closed()
    await settle()
    assert all(entry.link.peer != MALLORY for entry in both.bob._entries.values())
    assert await both.alice.call(BOB, "echo", b"fine") == b"fine"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frame(99, 1), "kind"),
        (frame(0, 1), "kind"),
        (wire.HEADER.pack(2**20, wire.CALL, 1), "at most"),
        (frame(wire.CALL, 1, b"\x00"), "expected a call"),
        (frame(wire.CALL, 1, ask("echo")[:6]), "expected a call"),
        (frame(wire.CALL, 1, wire.ASK.pack(0, 0, 2, 0) + b"\xff\xff"), "expected a call"),
        (frame(wire.CALL, 1, wire.ASK.pack(0, 0, 0, 0)), "expected a call"),
        (frame(wire.CALL, 1, ask("hang")) * 2, "new call"),
        (frame(wire.REPLY, 1, b"surprise"), "one of our"),
        (frame(wire.ERROR, 1, encode({"c": "x", "k": "x", "t": "x", "d": {}})), "one of our"),
        (frame(wire.DOWN_DATA, 5, b"1234data"), "one of our"),
        (frame(wire.DOWN_CREDIT, 5, b"1234"), "one of our"),
        (frame(wire.CANCEL, 1, b"x"), "no payload"),
        (frame(wire.OPEN, 1, ask("listen", b"abc")), "4 bytes"),
        (frame(wire.OPEN, 1, ask("listen", b"\0\0\0\1")) + frame(wire.UP_CREDIT, 1, b"\xff" * 3), "4 bytes"),
        (frame(wire.OPEN, 1, ask("listen", b"\0\0\0\1")) + frame(wire.UP_DATA, 1, b"ab"), "numbered"),
        (frame(wire.OPEN, 1, ask("listen", b"\0\0\0\1")) + frame(wire.UP_DATA, 1, bytes(4)) * 2, "message 1"),
        (frame(wire.OPEN, 1, ask("listen", b"\0\0\0\1")) + frame(wire.UP_END, 1, bytes(4)) * 2, "one end"),
        (
            frame(wire.OPEN, 1, ask("listen", b"\0\0\0\1")) + frame(wire.UP_CREDIT, 1, b"\xff" * 4) * 300,
            "credit for at most",
        ),
    ],
)  # fmt: skip
def test_bytes_that_mean_nothing_end_the_link_with_the_reason(sent: bytes, why: str) -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            stream = await raw_hello(link, MALLORY)
            await stream.write(sent)
            await check_cut_off(both, link, why)

    run(main())


def test_frames_of_calls_that_are_over_are_ignored() -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            stream = await raw_hello(link, MALLORY)
            for kind, payload in ((wire.UP_DATA, bytes(9)), (wire.UP_END, bytes(4)), (wire.UP_CREDIT, bytes(4))):
                await stream.write(frame(kind, 7, payload))
            await stream.write(frame(wire.CALL, 8, ask("echo", b"still here")))
            assert b"still here" in await stream.read(4096)

    run(main())


def test_credit_is_not_the_peers_to_invent() -> None:
    """A flood on a stream nobody reads holds the window and little more, then ends the link."""

    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            stream = await raw_hello(link, MALLORY)
            await stream.write(frame(wire.OPEN, 1, ask("listen", b"\0\0\0\1")))
            await settle()
            (channel,) = (c for e in both.bob._entries.values() if e.link.peer == MALLORY and e.session
                          for c in e.session.serving._channels.values())  # fmt: skip
            flood = asyncio.create_task(write_all(stream, [frame(wire.UP_DATA, 1, wire.COUNT.pack(i) + bytes(20_000))
                                                           for i in range(200)]))  # fmt: skip
            await check_cut_off(both, link, "without any")
            assert len(channel._in._ready) * 20_000 < 2**20 + 100_000
            await asyncio.gather(flood, return_exceptions=True)

    run(main())


def test_a_flood_of_calls_is_refused_call_by_call_and_bounded() -> None:
    async def main() -> None:
        async with ready(Limits(calls=10)) as both:
            link = attach(both)
            stream = await raw_hello(link, MALLORY)
            await write_all(stream, [frame(wire.CALL, i, ask("hang")) for i in range(1, 501)])
            await settle()
            (session,) = (e.session for e in both.bob._entries.values() if e.link.peer == MALLORY and e.session)
            assert len(session.serving) == 10
            refusals = 0
            while refusals < 490:
                refusals += (await stream.read(2**20)).count(b"rate_limit_exceeded")
            assert await both.alice.call(BOB, "echo", b"fine") == b"fine"

    run(main())


def test_a_peer_that_asks_and_never_reads_is_cut_off() -> None:
    async def main() -> None:
        async with ready(Limits(calls=1)) as both:
            link = attach(both)
            stream = await raw_hello(link, MALLORY)
            calls = [frame(wire.CALL, 2 * i + 1, ask("nothing" * 9)) for i in range(LANE_FLOOD_BYTES // 100)]
            flood = asyncio.create_task(write_all(stream, [b"".join(calls[i : i + 1000])
                                                           for i in range(0, len(calls), 1000)]))  # fmt: skip
            await check_cut_off(both, link, "reads its answers")
            await asyncio.gather(flood, return_exceptions=True)

    run(main())


def test_small_answers_nobody_reads_wait_in_their_handlers() -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            stream = await raw_hello(link, MALLORY)
            await write_all(stream, [frame(wire.CALL, i, ask("echo", bytes(20_000))) for i in range(1, 201)])
            await settle(400)
            (session,) = (e.session for e in both.bob._entries.values() if e.link.peer == MALLORY and e.session)
            assert session._lane.queued <= 2**20 + 40_000
            assert 0 < len(session.serving) <= 200

    run(main())


@pytest.mark.parametrize(
    "sent", [b"", b"\x40", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff", b"\x05\x00hello", b"\x01\x00\xf6"]
)
def test_half_a_hello_and_no_hello_end_in_time(sent: bytes) -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            stream = await link.open()
            if sent:
                await stream.write(sent)
            await settle()
            await both.clock.advance(10.1)
            await check_cut_off(both, link, "hello")

    run(main())


def test_a_hello_a_byte_a_second_ends_in_time() -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            stream = await link.open()
            hello = Handshake(MALLORY, BOB, Hello("slow", b"n" * 32), is_dialer=True).start()
            assert len(hello) > 20
            for i in range(12):
                if not link_is_closed(link):
                    await stream.write(hello[i : i + 1])
                await both.clock.advance(1)
            await check_cut_off(both, link, "hello within 10 s")

    run(main())


def test_more_silent_links_than_are_borne_are_closed_at_once() -> None:
    async def main() -> None:
        async with ready(Limits(hellos=5)) as both:
            links = [link_pair(PeerId(bytes([i]) * 32), BOB) for i in range(20)]
            for _, there in links:
                both.bob.accepted(there)
            await settle()
            assert sum(not link_is_closed(here) for here, _ in links) == 5

    run(main())


def test_a_peer_has_few_links() -> None:
    async def main() -> None:
        async with ready() as both:
            links = []
            for _ in range(7):
                links.append(attach(both))
                await raw_hello(links[-1], MALLORY)
            await settle()
            assert [link_is_closed(link) for link in links] == [True] * 3 + [False] * 4

    run(main())


def test_a_large_message_that_never_comes_holds_no_memory_and_delays_nobody() -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            lane = await raw_hello(link, MALLORY)
            for _ in range(8):
                bulk = await link.open()
                await bulk.write(wire.HEADER.pack(2**28, wire.CALL, 1) + b"x")
            await settle()
            await lane.write(frame(wire.CALL, 50, ask("echo", b"quick")))
            assert b"quick" in await lane.read(4096)

    run(main())


@pytest.mark.parametrize("kind", [wire.CANCEL, wire.OPEN, wire.ERROR, 99])
def test_only_large_messages_travel_apart(kind: int) -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            await raw_hello(link, MALLORY)
            bulk = await link.open()
            await bulk.write(frame(kind, 1))
            await check_cut_off(both, link, "large message")

    run(main())


def test_too_many_streams_are_a_fault() -> None:
    async def main() -> None:
        async with ready() as both:
            link = attach(both)
            await raw_hello(link, MALLORY)
            for _ in range(17):
                await (await link.open()).write(b"x")
            await check_cut_off(both, link, "streams")

    run(main())


# ---- hello: versions and private swarms ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alice", "bob", "words"),
    [
        ((1, 2), (3, 5), "1 to 2, found a peer that speaks 3 to 5 (bob/1); update this node"),
        ((4, 9), (1, 3), "4 to 9, found a peer that speaks 1 to 3 (bob/1); update this peer"),
    ],
)
def test_versions_without_overlap_are_named(alice: tuple[int, int], bob: tuple[int, int], words: str) -> None:
    async def main() -> None:
        ours = Introduction(ALICE, "alice/1", versions=alice)
        theirs = Introduction(BOB, "bob/1", versions=bob)
        async with pair(alice=ours, bob=theirs) as both:
            with pytest.raises(Unsupported) as caught:
                await both.alice.call(BOB, "echo", b"")
            assert words in str(caught.value)

    run(main())


def test_the_highest_common_version_is_spoken() -> None:
    async def main() -> None:
        theirs = Introduction(BOB, "bob/1", versions=(2, 7))
        async with pair(alice=Introduction(ALICE, "alice/1", versions=(1, 4)), bob=theirs) as both:
            both.bob.unary("echo", echo)
            await both.alice.call(BOB, "echo", b"")
            assert both.alice.conversations()[0].version == 4

    run(main())


SECRET, OTHER = b"s" * 32, b"t" * 32


def test_who_knows_the_secret_is_let_in() -> None:
    async def main() -> None:
        ours, theirs = Introduction(ALICE, "a", secret=SECRET), Introduction(BOB, "b", secret=SECRET)
        async with pair(alice=ours, bob=theirs) as both:
            both.bob.unary("echo", echo)
            assert await both.alice.call(BOB, "echo", b"in") == b"in"

    run(main())


@pytest.mark.parametrize(("mine", "theirs"), [(SECRET, OTHER), (SECRET, None), (None, SECRET)])
def test_who_does_not_is_told_one_thing(mine: bytes | None, theirs: bytes | None) -> None:
    async def main() -> None:
        ours, others = Introduction(ALICE, "a", secret=mine), Introduction(BOB, "b", secret=theirs)
        async with pair(alice=ours, bob=others) as both:
            with pytest.raises(Unauthorized) as caught:
                await both.alice.call(BOB, "echo", b"")
            assert str(caught.value) == "this peer is in another swarm or the swarm's key differs"

    run(main())


def private(me: PeerId, peer: PeerId, is_dialer: bool, nonce: bytes, secret: bytes = SECRET) -> Handshake:
    return Handshake(me, peer, Hello("x", nonce * 32, is_private=True), is_dialer, secret)


def test_a_listener_proves_nothing_to_a_dialer_that_proved_nothing() -> None:
    """No oracle: what a listener sends before a right proof does not depend on the secret."""
    said = []
    for secret in (SECRET, OTHER):
        bob = private(BOB, MALLORY, is_dialer=False, nonce=b"b", secret=secret)
        mallory = private(MALLORY, BOB, is_dialer=True, nonce=b"m", secret=b"?" * 32)
        hello = bob.receive(mallory.start())
        said.append(hello + bob.receive(mallory.receive(hello)))
        assert isinstance(bob.refused, Unauthorized)
        assert bob.agreed is None
    assert said[0] == said[1]


def test_a_proof_seen_once_fits_no_second_conversation() -> None:
    alice, bob = private(ALICE, BOB, True, b"a"), private(BOB, ALICE, False, b"b")
    proof = alice.receive(bob.receive(alice.start()))
    bob.receive(proof)
    assert bob.agreed is not None
    again = private(BOB, ALICE, False, b"c")
    again.receive(private(ALICE, BOB, True, b"a").start())
    again.receive(proof)
    assert again.agreed is None
    assert isinstance(again.refused, Unauthorized)


def test_a_proof_is_not_reflected() -> None:
    """Mallory, who knows nothing, dials with the listener's own words: roles are part of the proof."""
    bob = private(BOB, BOB, False, b"b")
    hello = bob.receive(private(BOB, BOB, True, b"b").start())
    echoed = private(BOB, BOB, True, b"b", OTHER)
    echoed.receive(hello)
    mac = bob._proof(SECRET, is_dialer=False)
    body = encode({"m": mac})
    bob.receive(len(body).to_bytes(2, "little") + body)
    assert isinstance(bob.refused, Unauthorized)


def test_a_proof_binds_everything_both_said() -> None:
    """A changed nonce, id, hello or secret gives another proof."""

    def proof(me: PeerId = ALICE, peer: PeerId = BOB, nonce: bytes = b"a", secret: bytes = SECRET) -> bytes:
        side = private(me, peer, True, nonce, secret)
        listener = private(peer, me, False, b"b", secret)
        return side.receive(listener.receive(side.start()))

    base = proof()
    assert base == proof()
    changed = [proof(me=MALLORY), proof(peer=MALLORY), proof(nonce=b"z"), proof(secret=OTHER)]
    assert len({base, *changed}) == 5
    assert not any(hmac.compare_digest(base, other) for other in changed)


def test_a_silent_listener_is_unreachable_at_the_hello() -> None:
    async def main() -> None:
        async with pair() as both:
            both.here, both.there = link_pair(ALICE, BOB)
            call = asyncio.create_task(both.alice.call(BOB, "echo", b""))
            await settle()
            await both.clock.advance(10.5)
            with pytest.raises(Unreachable, match="hello: expected a hello within 10 s"):
                await call

    run(main())


def ready(limits: Limits | None = None) -> Ready:
    return Ready(limits)


class Ready:
    """A pair whose bob answers echo, hang and listen."""

    def __init__(self, limits: Limits | None) -> None:
        self._pair = pair(limits)

    async def __aenter__(self) -> Pair:
        both = await self._pair.__aenter__()
        both.bob.unary("echo", echo)
        both.bob.unary("hang", hang)
        both.bob.streaming("listen", listen)
        return both

    async def __aexit__(self, *error: object) -> None:
        await self._pair.__aexit__(*error)  # type: ignore[arg-type]


def link_is_closed(link: FakeLink) -> bool:
    return link._reason is not None


async def write_all(stream: FakeStream, pieces: list[bytes]) -> None:
    for piece in pieces:
        await stream.write(piece)
