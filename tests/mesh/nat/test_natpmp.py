"""NAT-PMP against a router written from RFC 6886, over real sockets on the loopback device."""

import asyncio
import struct
from pathlib import Path

import pytest

from shoal.core.errors import PeerFault, Unreachable
from shoal.mesh.nat import natpmp


class Router(asyncio.DatagramProtocol):
    """RFC 6886 sections 3.2 and 3.3; `deaf` requests are lost first, `result` other than 0 refuses."""

    def __init__(self, deaf: int = 0, result: int = 0) -> None:
        self.deaf, self.result = deaf, result
        self.mapped: dict[int, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.deaf:
            self.deaf -= 1
            return
        if data == b"\0\0":
            answer = struct.pack(">BBHI4B", 0, 128, self.result, 7, 44, 1, 2, 3)
        else:
            internal, wanted, lifetime = struct.unpack(">HHI", data[4:])
            self.mapped[internal] = lifetime
            answer = struct.pack(">BBHIHHI", 0, 129, self.result, 7, internal, wanted + 1 if lifetime else 0, lifetime)
        self.transport.sendto(answer, addr)  # type: ignore[attr-defined]


def with_router(router: Router, work: object) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: router, local_addr=("127.0.0.1", 0))
        await work(transport.get_extra_info("sockname")[1])  # type: ignore[operator]
        transport.close()

    asyncio.run(run())


@pytest.mark.parametrize("deaf", [0, 1])
def test_a_port_is_mapped_and_given_back(deaf: int) -> None:
    router = Router(deaf)

    async def work(port: int) -> None:
        mapping = await natpmp.map_port("127.0.0.1", 4000, 60, port)
        assert mapping == natpmp.Mapping("44.1.2.3:4001", 4000, 60)
        await natpmp.unmap_port("127.0.0.1", 4000, port)
        assert router.mapped == {4000: 0}

    with_router(router, work)


def test_a_router_that_refuses_says_why() -> None:
    async def work(port: int) -> None:
        with pytest.raises(PeerFault, match="not allowed"):
            await natpmp.map_port("127.0.0.1", 4000, 60, port)

    with_router(Router(result=2), work)


def test_a_machine_without_the_service_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        asyncio.run(natpmp.map_port("127.0.0.1", 4000, 60, 1))


@pytest.mark.parametrize("data", [b"", b"\0\x80", b"\0\x80\0\0" + bytes(9), b"\1\x80\0\0" + bytes(8), bytes(12)])
def test_answers_that_are_none_are_the_routers_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        natpmp.parse_address(data)
    with pytest.raises(PeerFault):
        natpmp.parse_map(data)


def test_the_default_gateway_is_read_from_the_kernels_table(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway\tFlags\neth0\t0001A8C0\t00000000\t0001\neth0\t00000000\t0101A8C0\t0003\n"
    )
    assert natpmp.default_gateway(table) == "192.168.1.1"
    assert natpmp.default_gateway(tmp_path / "none") is None
    table.write_text("Iface\tDestination\tGateway\tFlags\n")
    assert natpmp.default_gateway(table) is None
