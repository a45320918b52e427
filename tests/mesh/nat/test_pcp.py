"""PCP against a router written from RFC 6887, over real sockets on the loopback device."""

import asyncio
import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import PeerFault, Unreachable
from shoal.mesh.nat import pcp
from shoal.mesh.nat.natpmp import Mapping

NONCE = bytes(range(12))
LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\x01"
OUTSIDE = bytes(10) + b"\xff\xff\x2c\1\2\3"


class Router(asyncio.DatagramProtocol):
    """Sections 7.2, 8.3 and 11.3. `result` other than 0 refuses; `old` speaks NAT-PMP only."""

    def __init__(self, result: int = 0, old: bool = False, shift: int = 0) -> None:
        self.result, self.old, self.shift = result, old, shift
        self.mapped: dict[int, tuple[bytes, int]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.old:
            self.transport.sendto(struct.pack(">BBHI", 0, 128, 1, 7), addr)  # RFC 6886, section 3.5
            return
        version, operation, lifetime, client = struct.unpack(">BBxxI16s", data[:24])
        nonce, protocol, internal, wanted, _ = struct.unpack(">12sB3xHH16s", data[24:])
        assert (version, operation, protocol, client, len(data)) == (2, 1, 17, LOOPBACK, 60)
        self.mapped[internal] = (nonce, lifetime)
        head = struct.pack(">BBBBII12x", 2, 129, 0, self.result, lifetime, 7)
        body = struct.pack(">12sB3xHH16s", nonce, 17, internal + self.shift, wanted + 1 if lifetime else 0, OUTSIDE)
        self.transport.sendto(head + body, addr)


def with_router(router: Router, work: Any) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: router, local_addr=("127.0.0.1", 0))
        await work(transport.get_extra_info("sockname")[1])
        transport.close()

    asyncio.run(run())


def test_a_port_is_mapped_and_given_back_with_the_same_nonce() -> None:
    router = Router()

    async def work(port: int) -> None:
        assert await pcp.map_port("127.0.0.1", 4000, NONCE, 60, port) == Mapping("44.1.2.3:4001", 4000, 60)
        assert router.mapped == {4000: (NONCE, 60)}
        await pcp.unmap_port("127.0.0.1", 4000, NONCE, port)
        assert router.mapped == {4000: (NONCE, 0)}

    with_router(router, work)


@pytest.mark.parametrize(
    ("router", "words"),
    [
        (Router(result=2), "refused: it is not allowed"),
        (Router(result=99), "refused: result 99"),
        (Router(old=True), "does not speak it"),
        (Router(shift=1), "asked for port 4000, the router answered about 4001"),
    ],
)
def test_a_router_that_refuses_or_speaks_otherwise_says_so(router: Router, words: str) -> None:
    async def work(port: int) -> None:
        with pytest.raises(PeerFault, match=words):
            await pcp.map_port("127.0.0.1", 4000, NONCE, 60, port)

    with_router(router, work)


def test_a_machine_without_the_service_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="pcp: 127"):
        asyncio.run(pcp.map_port("127.0.0.1", 4000, NONCE, 60, 1))


@given(st.binary(max_size=80), st.booleans())
def test_any_answer_is_a_mapping_or_the_routers_fault(data: bytes, is_close: bool) -> None:
    """Invariant: a typed value or PeerFault, never another exception."""
    answer = (b"\x02\x81\0\0" + data).ljust(60, b"\0")[:60] if is_close else data
    with contextlib.suppress(PeerFault):
        assert pcp.parse_map(answer).lifetime_s >= 0
