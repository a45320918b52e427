"""The relay with real sockets: a client written from the protocol's page, and the quic carrier itself."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from shoal.core.errors import BadConfig, Unreachable
from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.relay import RelayConfig, RelayLimits, RelayServer, serve_relay
from shoal.mesh.relay.frames import PURPOSE, VERSIONS


def public(n: int) -> bytes:
    return PrivateKey(bytes([n]) * 32).public


@contextlib.asynccontextmanager
async def relay_of(**changes: object) -> AsyncIterator[RelayServer]:
    relay = await RelayServer.start(RelayConfig(host="127.0.0.1", port=0, **changes))  # type: ignore[arg-type]
    try:
        yield relay
    finally:
        await relay.close()


async def client(relay: RelayServer, n: int, **options: object) -> ClientConnection:
    """A connection that has proven key `n`."""
    socket = await connect(f"{relay.url.replace('http', 'ws')}relay", subprotocols=VERSIONS, **options)  # type: ignore[arg-type]
    challenge = await socket.recv()
    assert isinstance(challenge, bytes)
    assert challenge[0] == 0
    key = Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)
    await socket.send(b"\x01" + public(n) + b"\x40" + key.sign(blake3_digest(PURPOSE, challenge[1:])))
    return socket


async def member(relay: RelayServer, n: int) -> ClientConnection:
    socket = await client(relay, n)
    assert await socket.recv() == b"\x02"
    return socket


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


def test_packets_cross_with_the_senders_proven_name() -> None:
    async def work() -> None:
        async with relay_of() as relay:
            a, b = await member(relay, 1), await member(relay, 2)
            await a.send(b"\x04" + public(2) + b"\x00sealed")
            assert await b.recv() == b"\x06" + public(1) + b"\x00sealed"
            await a.send(b"\x0912345678")
            assert await a.recv() == b"\x0a12345678"
            assert relay.stats().clients == 2

    run(work)


def test_the_sender_who_leaves_is_gone() -> None:
    async def work() -> None:
        async with relay_of() as relay:
            a, b = await member(relay, 1), await member(relay, 2)
            await a.send(b"\x04" + public(2) + b"\x00x")
            await b.recv()
            await a.close()
            assert await b.recv() == b"\x08" + public(1)

    run(work)


def test_a_second_connection_of_a_key_ends_the_first() -> None:
    async def work() -> None:
        async with relay_of() as relay:
            first = await member(relay, 1)
            await member(relay, 1)
            assert await first.recv() == b"\x0d\x01"
            with pytest.raises(ConnectionClosed):
                await first.recv()
            assert relay.stats().clients == 1

    run(work)


def test_a_key_without_its_signature_gets_nothing() -> None:
    async def work() -> None:
        async with relay_of() as relay:
            socket = await connect(f"ws://127.0.0.1:{relay.port}/relay", subprotocols=VERSIONS)  # type: ignore[arg-type]
            await socket.recv()
            await socket.send(b"\x01" + public(1) + b"\x40" + bytes(64))
            denial = await socket.recv()
            assert isinstance(denial, bytes)
            assert denial[0] == 3
            assert relay.stats().refused == {"no proof of a key": 1}
            assert relay.stats().clients == 0

    run(work)


def test_only_those_on_the_list_are_served() -> None:
    async def work() -> None:
        async with relay_of(allow=frozenset({PeerId(public(1))})) as relay:
            await member(relay, 1)
            denial = await (await client(relay, 2)).recv()
            assert isinstance(denial, bytes)
            assert denial[:1] == b"\x03"
            assert relay.stats().refused == {"not on the list": 1}

    run(work)


def test_a_token_is_asked_of_everybody() -> None:
    async def work() -> None:
        async with relay_of(auth_token="sesame") as relay:
            with pytest.raises(InvalidStatus) as caught:
                await client(relay, 1)
            assert caught.value.response.status_code == 401
            await client(relay, 1, additional_headers={"Authorization": "Bearer sesame"})

    run(work)


def test_whoever_proves_nothing_in_time_is_sent_away() -> None:
    async def work() -> None:
        async with relay_of(limits=RelayLimits(handshake_s=0.05)) as relay:
            socket = await connect(f"ws://127.0.0.1:{relay.port}/relay", subprotocols=VERSIONS)  # type: ignore[arg-type]
            await socket.recv()
            denial = await socket.recv()
            assert isinstance(denial, bytes)
            assert denial[0] == 3

    run(work)


def test_a_silent_client_is_taken_for_gone() -> None:
    async def work() -> None:
        async with relay_of(limits=RelayLimits(idle_s=0.05)) as relay:
            socket = await member(relay, 1)
            with pytest.raises(ConnectionClosed):
                await socket.recv()

    run(work)


@pytest.mark.parametrize("limits", [RelayLimits(clients=1), RelayLimits(per_address=1)])
def test_a_full_relay_says_so(limits: RelayLimits) -> None:
    async def work() -> None:
        async with relay_of(limits=limits) as relay:
            await member(relay, 1)
            with pytest.raises(InvalidStatus) as caught:
                await client(relay, 2)
            assert caught.value.response.status_code == 503

    run(work)


@pytest.mark.parametrize("data", ["text", b"", b"\x63junk", b"\x04short"])
def test_nonsense_ends_the_session_and_only_it(data: str | bytes) -> None:
    async def work() -> None:
        async with relay_of() as relay:
            good, bad = await member(relay, 1), await member(relay, 2)
            await bad.send(data)
            with pytest.raises(ConnectionClosed):
                await bad.recv()
            await good.send(b"\x0912345678")
            assert await good.recv() == b"\x0a12345678"

    run(work)


def test_a_closing_relay_says_so_and_closes() -> None:
    async def work() -> None:
        async with relay_of() as relay:
            socket = await member(relay, 1)
            await relay.close()
            notice = await socket.recv()
            assert isinstance(notice, bytes)
            assert notice[0] == 12
            with pytest.raises(ConnectionClosed):
                await socket.recv()

    run(work)


def test_serve_relay_runs_until_it_is_told_to_stop() -> None:
    async def work() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(serve_relay(RelayConfig(host="127.0.0.1", port=0), stop))
        await asyncio.sleep(0)
        stop.set()
        assert (await task).clients == 0

    run(work)


async def _get(relay: RelayServer, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Iroh-Challenge: abc\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


def test_what_is_no_relay_path_is_plain_http() -> None:
    async def work() -> None:
        async with relay_of() as relay:
            assert b" 204 " in (probe := await _get(relay, "/generate_204"))
            assert b"response abc" in probe
            assert b" 200 " in await _get(relay, "/ping")
            assert b" 404 " in await _get(relay, "/elsewhere")

    run(work)


@pytest.mark.parametrize("change", [{"certificate": Path("/nowhere")}, {"private_key": Path("/nowhere")}])
def test_a_certificate_that_cannot_be_used_is_refused(change: dict[str, Path]) -> None:
    with pytest.raises(BadConfig):
        asyncio.run(RelayServer.start(RelayConfig(host="127.0.0.1", port=0, **change)))  # type: ignore[arg-type]


def test_tls_with_a_certificate_file(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)

    async def work() -> None:
        async with relay_of(certificate=certificate, private_key=key) as relay:
            trust = ssl.create_default_context(cafile=str(certificate))
            trust.check_hostname = False
            assert relay.url.startswith("https://")
            socket = await client(relay, 1, ssl=trust)
            assert await socket.recv() == b"\x02"

    run(work)


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.test")])
    start = datetime.datetime(2020, 1, 1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=36500))
    signed = made.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


def test_the_quic_carrier_meets_its_peer_through_the_relay() -> None:
    async def work() -> None:
        async with relay_of(auth_token="sesame") as relay:
            made = [
                await QuicCarrier.start(QuicConfig(PrivateKey(bytes([n]) * 32), "127.0.0.1:0", (relay.url,), "sesame"))
                for n in (1, 2)
            ]
            a, b = made
            assert b.address().relays == (relay.url,)
            only_relay = Address(b.address().peer, relays=b.address().relays)
            dialed, accepted = await asyncio.gather(a.dial(only_relay, 10), b.accept())
            stream = await dialed.open()
            await stream.write(b"through the relay")
            assert await (await accepted.accept()).read(99) == b"through the relay"
            assert relay.stats().forwarded_frames > 0
            await a.close()
            await b.close()

    run(work)


def test_a_wrong_token_is_named_in_the_failure() -> None:
    async def work() -> None:
        async with relay_of(auth_token="sesame") as relay:
            config = QuicConfig(PrivateKey(b"\1" * 32), "127.0.0.1:0", (relay.url,), "wrong", online_s=0.2)
            a = await QuicCarrier.start(config)
            with pytest.raises(Unreachable) as caught:
                await a.dial(Address(PeerId(public(2)), relays=(relay.url,)), 0.3)
            assert "no relay" in caught.value.steps[-1]
            await a.close()

    run(work)


def test_who_opens_connections_and_says_nothing_leaves_room_for_others() -> None:
    async def work() -> None:
        async with relay_of(limits=RelayLimits(per_address=2, knocking=1)) as relay:
            silent = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(3)]
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b"", "cut off at once, without a word"
            for _, other in (*silent, (reader, writer)):
                other.close()
                await asyncio.gather(other.wait_closed(), return_exceptions=True)
            while relay._knocks:
                await asyncio.sleep(0)
            await member(relay, 1)

    run(work)


def test_a_header_of_any_bytes_is_a_wrong_token() -> None:
    async def work() -> None:
        async with relay_of(auth_token="secret") as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            lines = (
                "GET /relay HTTP/1.1",
                "Host: x",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Version: 13",
            )
            head = "\r\n".join((*lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Authorization: Bearer "))
            writer.write(head.encode() + b"\xff\xfe\r\n\r\n")
            assert b" 401 " in await reader.readline()
            assert relay.stats().refused == {"wrong token": 1}
            writer.close()

    run(work)
