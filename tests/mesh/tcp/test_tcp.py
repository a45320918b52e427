"""TCP links: both keys proven, hostile bytes refused, floods bounded, small messages fast beside bulk."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from shoal.core.errors import InvalidRequest, LinkClosed, PeerFault, Unreachable, Unsupported
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId
from shoal.mesh.tcp import DoorLimits, TcpCarrier, TcpOptions, frames, listen_tcp
from shoal.mesh.tcp.certificate import client_context, peer_of
from shoal.mesh.tcp.endpoint import Endpoint, of_socket
from shoal.mesh.tcp.hello import (
    SERVER_HELLO_BYTES,
    ServerHello,
    client_hello,
    parse_client_hello,
    parse_server_hello,
)

A, B, C = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await body()

    asyncio.run(limited())


@asynccontextmanager
async def carrier(key: PrivateKey = B, listen: tuple[str, ...] = ("127.0.0.1:0",), **door) -> AsyncIterator[TcpCarrier]:
    made = await listen_tcp(key, TcpOptions(listen=listen, door=DoorLimits(**door)))
    try:
        yield made
    finally:
        await made.close()


async def channel(server: TcpCarrier) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """TLS to `server` and nothing more."""
    host, _, port = server.address().tcp[0].rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=client_context(), server_hostname="")


async def is_ended(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError, ssl.SSLError):
        while await reader.read(1000):
            pass
    return True


def test_endpoints_are_read_strictly_and_written_back() -> None:
    for text in ("127.0.0.1:1", "[::1]:65535", "[2001:db8::5]:80"):
        assert str(Endpoint.parse(text)) == text
    for text in (
        "",
        "localhost:1",
        "1.2.3.4",
        "1.2.3.4:99999",
        "1.2.3.256:1",
        "::1:5",
        "[::1]",
        "[1.2.3.4]:5",
        "1.2.3.4:-1",
    ):
        with pytest.raises(InvalidRequest, match="expected"):
            Endpoint.parse(text)
    assert str(of_socket(("::ffff:1.2.3.4", 5, 0, 0))) == "1.2.3.4:5"
    assert Endpoint.parse("[2001:db8::5]:1").site == Endpoint.parse("[2001:db8::6]:2").site == "2001:db8::/64"


def test_the_proof_is_good_for_one_server_one_nonce_and_one_client() -> None:
    server, stranger = PeerId(B.public), PeerId(C.public)
    hello = ServerHello(1, 1, bytes(range(32)))
    assert parse_server_hello(hello.encode()) == hello
    good = client_hello(A, server, hello)
    assert parse_client_hello(good, server, hello.nonce) == PeerId(A.public)
    for bad, at, nonce in (
        (good, server, bytes(32)),  # replayed to a later connection
        (good, stranger, hello.nonce),  # relayed to another server
        (good[:1] + C.public + good[33:], server, hello.nonce),  # under another's name
        (bytes([2]) + good[1:], server, hello.nonce),  # of another version
        (good[:-1], server, hello.nonce),
        (b"", server, hello.nonce),
    ):
        with pytest.raises(PeerFault):
            parse_client_hello(bad, at, nonce)


def test_versions_without_a_common_one_say_who_must_update() -> None:
    with pytest.raises(Unsupported, match="update this Shoal"):
        parse_server_hello(ServerHello(2, 3, bytes(32)).encode())
    with pytest.raises(Unsupported, match="update the other side"):
        parse_server_hello(ServerHello(0, 0, bytes(32)).encode())
    for bytes_ in (b"", b"HTTP/1.1 400 Bad Request\r\n" + bytes(16), bytes(SERVER_HELLO_BYTES)):
        with pytest.raises(PeerFault, match="not Shoal"):
            parse_server_hello(bytes_)


@pytest.mark.parametrize("data", [None, b"", b"x" * 100, bytes(5000)])
def test_what_is_no_certificate_of_ours_is_refused(data: bytes | None) -> None:
    with pytest.raises(PeerFault):
        peer_of(data)


def test_a_replayed_hello_gets_no_link() -> None:
    async def body() -> None:
        async with carrier() as server:
            proofs = []
            for attempt in range(2):
                reader, writer = await channel(server)
                hello = parse_server_hello(await reader.readexactly(SERVER_HELLO_BYTES))
                proofs.append(client_hello(A, PeerId(B.public), hello))
                writer.write(proofs[0])
                if attempt == 0:
                    assert await reader.readexactly(2) == b"\0\0"
                    assert (await server.accept()).peer == PeerId(A.public)
                else:
                    assert await reader.read(2) == b""
                writer.close()

    run(body)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(3000), random.Random(1).randbytes(500)])
def test_bytes_that_are_no_handshake_end_the_connection(garbage: bytes) -> None:
    async def body() -> None:
        async with carrier() as server:
            host, _, port = server.address().tcp[0].rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(garbage)
            writer.write_eof()
            assert await is_ended(reader)
            writer.close()
            reader, writer = await channel(server)
            writer.write(bytes(97))
            assert await is_ended(reader)
            writer.close()

    run(body)


def test_half_open_connections_are_bounded_in_number_and_time() -> None:
    async def body() -> None:
        async with carrier(half_open_per_site=3, handshake_s=0.4) as server, carrier(A, ()) as client:
            host, _, port = server.address().tcp[0].rpartition(":")
            idle = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            with pytest.raises(Unreachable):
                await client.dial(server.address(), 0.2)
            assert all([await is_ended(reader) for reader, _ in idle])  # thrown out after handshake_s
            link = await client.dial(server.address(), 5)
            assert link.peer == PeerId(B.public)
            for _, writer in idle:
                writer.close()

    run(body)


def test_a_full_node_declines_with_a_reason_and_has_room_again() -> None:
    async def body() -> None:
        async with carrier(links_per_site=1) as server, carrier(A, ()) as client, carrier(C, ()) as other:
            first = await client.dial(server.address(), 5)
            accepted = await server.accept()
            with pytest.raises(Unreachable, match="declined: 1 links from your address"):
                await other.dial(server.address(), 5)
            await first.close()
            await accepted.closed()
            assert (await other.dial(server.address(), 5)).peer == server.address().peer

    run(body)


def test_every_failed_endpoint_is_explained() -> None:
    async def body() -> None:
        closed = await listen_tcp(B, TcpOptions(listen=("127.0.0.1:0",)))
        port = closed.address().tcp[0]
        await closed.close()
        plain = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        other = f"127.0.0.1:{plain.sockets[0].getsockname()[1]}"
        async with carrier(A, ()) as client:
            with pytest.raises(Unreachable) as caught:
                await client.dial(Address(PeerId(B.public), tcp=(port, "nonsense", other)), 5)
            steps = caught.value.steps
            assert "refused: nothing listens there" in steps[0]
            assert 'expected "ip:port"' in steps[1]
            assert len(steps) == 3
        plain.close()

    run(body)


def test_the_first_endpoint_that_works_wins_and_ipv6_is_one() -> None:
    async def body() -> None:
        async with carrier(listen=("[::1]:0",)) as server, carrier(A, ()) as client:
            good = server.address().tcp[0]
            link = await client.dial(Address(PeerId(B.public), tcp=("127.0.0.1:1", good)), 5)
            assert link.info().remote == good
            assert (await server.accept()).peer == PeerId(A.public)

    run(body)


def test_the_address_lists_every_interface_and_what_was_announced() -> None:
    async def body() -> None:
        async with carrier(listen=("0.0.0.0:0",)) as server, carrier(A, ()) as client:
            server.announce(("203.0.113.9:4000",))
            hints = server.address().tcp
            assert hints[0] == "203.0.113.9:4000"
            assert any(hint.startswith("127.0.0.1:") for hint in hints)
            loopback = tuple(hint for hint in hints if hint.startswith("127."))
            assert (await client.dial(Address(PeerId(B.public), tcp=loopback), 5)).peer == PeerId(B.public)

    run(body)


HOSTILE = {
    "unknown kind": frames.header(200, 0, 1),
    "a stream of ours": frames.header(frames.OPEN, 0, 2),
    "opened twice": frames.header(frames.OPEN, 0, 1) * 2,
    "never opened": frames.header(frames.DATA, 1, 7) + b"x",
    "too many streams": b"".join(frames.header(frames.OPEN, 0, number) for number in range(1, 1200, 2)),
    "after its end": frames.header(frames.OPEN, 0, 1) + frames.header(frames.FINISH, 0, 1) * 2,
    "credit without end": frames.header(frames.OPEN, 0, 1) + frames.header(frames.CREDIT, frames.MAX_VALUE, 1),
    "without credit": frames.header(frames.OPEN, 0, 1) + (frames.header(frames.DATA, 60_000, 1) + bytes(60_000)) * 5,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_peer_that_breaks_the_protocol_loses_its_link(name: str) -> None:
    async def body() -> None:
        async with carrier() as server:
            reader, writer = await channel(server)
            hello = parse_server_hello(await reader.readexactly(SERVER_HELLO_BYTES))
            writer.write(client_hello(A, PeerId(B.public), hello))
            link = await server.accept()
            writer.write(HOSTILE[name])
            assert "broke the protocol" in await link.closed()
            assert await is_ended(reader)
            writer.close()

    run(body)


def test_the_parser_gives_the_same_frames_for_any_portions() -> None:
    """Invariant: how bytes are cut changes nothing but where DATA is cut."""
    dice = random.Random(3)
    data = b""
    for number in range(1, 60):
        size = dice.randrange(300)
        data += frames.header(frames.OPEN, 5, number) + frames.header(frames.DATA, size, number) + dice.randbytes(size)
        data += frames.header(dice.choice((frames.FINISH, frames.RESET, frames.CREDIT, frames.PING)), 7, number)

    def parsed(cut: Callable[[], int]) -> list[object]:
        parser, start, found = frames.Parser(), 0, []
        while start < len(data):
            step = cut()
            for kind, value, number, payload in parser.feed(memoryview(data)[start : start + step]):
                if kind == frames.DATA:
                    found += [(number, byte) for byte in payload]
                else:
                    found.append((kind, value, number))
            start += step
        return found

    whole = parsed(lambda: len(data))
    assert parsed(lambda: 1) == whole
    assert parsed(lambda: dice.randrange(1, 40)) == whole


def test_random_bytes_are_frames_or_the_peers_fault() -> None:
    """Invariant: the parser raises nothing but PeerFault and keeps less than a header."""
    dice = random.Random(4)
    for _ in range(500):
        parser = frames.Parser()
        with suppress(PeerFault):
            for _ in range(5):
                list(parser.feed(memoryview(dice.randbytes(dice.randrange(200)))))
        assert len(parser._kept) < frames.HEADER_BYTES


def test_small_messages_pass_a_bulk_transfer_on_the_same_link() -> None:
    """Between two small answers a bulk stream gets at most a few windows through, not its whole transfer."""

    async def body() -> None:
        async with carrier() as server, carrier(A, ()) as client:
            link = await client.dial(server.address(), 5)
            accepted = await server.accept()
            bulk = await link.open()
            total, read, worst = 60_000_000, 0, 0
            writing = asyncio.create_task(bulk.write(bytes(total)))
            theirs = await accepted.accept()

            async def drain() -> None:
                nonlocal read
                while read < total:
                    read += len(await theirs.read(1 << 20))

            draining = asyncio.create_task(drain())
            small = await link.open(priority=1)
            echo = None
            for number in range(20):
                before = read
                await small.write(bytes([number]))
                echo = echo or await accepted.accept()
                await echo.write(await echo.read(1))
                assert await small.read(1) == bytes([number])
                worst = max(worst, read - before)
            assert worst < 16_000_000
            await asyncio.gather(writing, draining)

    run(body)


def test_a_vanished_peer_is_noticed_and_named() -> None:
    async def body() -> None:
        async with carrier() as server:
            reader, writer = await channel(server)
            hello = parse_server_hello(await reader.readexactly(SERVER_HELLO_BYTES))
            writer.write(client_hello(A, PeerId(B.public), hello))
            link = await server.accept()
            writer.transport.abort()
            reason = await link.closed()
            assert "connection" in reason
            with pytest.raises(LinkClosed, match=PeerId(A.public).short):
                await link.open()

    run(body)


def test_a_peer_that_asks_and_never_reads_is_cut_off() -> None:
    async def body() -> None:
        async with carrier() as server:
            reader, writer = await channel(server)
            hello = parse_server_hello(await reader.readexactly(SERVER_HELLO_BYTES))
            writer.write(client_hello(A, PeerId(B.public), hello))
            link = await server.accept()
            writer.transport.pause_reading()
            pings = frames.header(frames.PING, 0, 1) * 8192
            ending = asyncio.create_task(link.closed())
            while not ending.done():
                writer.write(pings)
                await asyncio.sleep(0)
            assert "does not read" in await ending
            writer.transport.abort()

    run(body)


def test_writes_cancelled_at_any_moment_keep_the_accounts() -> None:
    """Invariant: a frame cancelled before it was sent gives its credit back, one cancelled after keeps it taken."""

    async def body() -> None:
        dice = random.Random(6)
        async with carrier() as server, carrier(A, ()) as client:
            link = await client.dial(server.address(), 5)
            accepted = await server.accept()
            streams = [await link.open(priority=number % 2) for number in range(6)]
            for stream in streams:
                await stream.write(b"x")
            theirs = [await accepted.accept() for _ in streams]

            async def drain(stream) -> None:
                with suppress(LinkClosed):
                    while await stream.read(dice.randrange(1, 200_000)):
                        await asyncio.sleep(0)

            async def torment(stream, other) -> None:
                for _ in range(60):
                    writing = asyncio.create_task(stream.write(bytes(dice.randrange(1, 900_000))))
                    for _ in range(dice.randrange(30)):
                        await asyncio.sleep(0)
                    writing.cancel()
                    await asyncio.gather(writing, return_exceptions=True)
                await stream.write(b"x")
                for _ in range(400):  # what is under way arrives and is read
                    if stream._room.amount == other._credit:
                        break
                    await asyncio.sleep(0.005)
                assert stream._room.amount == other._credit
                finishing = asyncio.create_task(stream.finish())
                await asyncio.sleep(0)
                finishing.cancel()
                await asyncio.gather(finishing, return_exceptions=True)
                await stream.finish()

            draining = [asyncio.create_task(drain(stream)) for stream in theirs]
            await asyncio.gather(*map(torment, streams, theirs))
            await asyncio.gather(*draining)
            last = await link.open()
            await last.write(b"alive")
            assert await (await accepted.accept()).read(5) == b"alive"

    run(body)


def test_what_waits_to_be_read_is_bounded_over_all_links_and_the_fullest_goes() -> None:
    """A thousand links, each within its own windows, were 128 GB."""

    async def body() -> None:
        server = await listen_tcp(B, TcpOptions(("127.0.0.1:0",), max_unread=400_000))
        async with carrier(A, ()) as one, carrier(C, ()) as other:
            small, large = await one.dial(server.address(), 5), await other.dial(server.address(), 5)
            kept, lost = await server.accept(), await server.accept()
            first = await small.open()
            await first.write(bytes(100_000))
            reading = await kept.accept()
            streams = [await large.open() for _ in range(2)]
            with suppress(LinkClosed):
                await asyncio.gather(*(stream.write(bytes(250_000)) for stream in streams))
            assert "more waits to be read here than there is room for" in await lost.closed()
            got = 0
            while got < 100_000:
                got += len(await reading.read(65_536))
            assert (server._unread_bytes, dict(server._unread)) == (0, {})
        await server.close()

    run(body)
