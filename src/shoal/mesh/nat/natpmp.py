"""NAT-PMP (RFC 6886): ask the router for an outside UDP port, for a while. Encoding and parsing are pure."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import PeerFault, Unreachable

PORT = 5351
FIRST_WAIT_S = 0.25
TRIES = 5
"""RFC 6886 section 3.1: 250 ms, doubled for each try; five cover 7.75 s."""

RESULTS = {
    1: "it does not know this version",
    2: "it is not allowed (turned off in the router)",
    3: "its network is down",
    4: "it has no ports left",
    5: "it does not know this operation",
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """The router's `external` "ip:port" leads to our `internal_port` for `lifetime_s`; renew at half of it."""

    external: str
    internal_port: int
    lifetime_s: int


def address_request() -> bytes:
    return b"\x00\x00"


def map_request(internal_port: int, wanted_port: int, lifetime_s: int) -> bytes:
    """Opcode 1, UDP. A lifetime of 0 takes the mapping back."""
    return struct.pack(">BBHHHI", 0, 1, 0, internal_port, wanted_port, lifetime_s)


def parse_address(data: bytes) -> str:
    """The router's outside IPv4 address. PeerFault for anything else, its refusals included."""
    _check(data, 128, 12)
    return str(ipaddress.IPv4Address(data[8:12]))


def parse_map(data: bytes) -> tuple[int, int, int]:
    """Internal port, outside port, lifetime in seconds."""
    _check(data, 129, 16)
    internal, external, lifetime = struct.unpack(">HHI", data[8:16])
    return internal, external, lifetime


def _check(data: bytes, operation: int, size: int) -> None:
    if len(data) >= 4 and data[1] & 128 and (code := int.from_bytes(data[2:4], "big")):
        raise PeerFault(f"nat-pmp: the router refused: {RESULTS.get(code, f'result {code}')}")
    if len(data) != size or data[0] != 0 or data[1] != operation:
        raise PeerFault(f"nat-pmp: expected an answer of {size} bytes to operation {operation - 128}")


def default_gateway(table: Path = Path("/proc/net/route")) -> str | None:
    """The IPv4 default route's gateway as Linux tells it; None elsewhere or without one."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return None
    for row in rows:
        if len(row) > 3 and row[1] == "00000000" and int(row[3], 16) & 2:
            return str(ipaddress.IPv4Address(bytes.fromhex(row[2])[::-1]))
    return None


async def map_port(gateway: str, internal_port: int, lifetime_s: int = 3600, port: int = PORT) -> Mapping:
    """A mapping of a UDP port. Unreachable where nobody answers, PeerFault where the router refuses."""
    outside = parse_address(await ask(gateway, port, lambda own: address_request()))
    wanted = map_request(internal_port, internal_port, lifetime_s)
    reply = parse_map(await ask(gateway, port, lambda own: wanted))
    if reply[0] != internal_port:
        raise PeerFault(f"nat-pmp: asked for port {internal_port}, the router answered about {reply[0]}")
    return Mapping(f"{outside}:{reply[1]}", internal_port, reply[2])


async def unmap_port(gateway: str, internal_port: int, port: int = PORT) -> None:
    """Take the mapping back, as a node does when it stops."""
    parse_map(await ask(gateway, port, lambda own: map_request(internal_port, 0, 0)))


class _Reply(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.data: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.data.done():
            self.data.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.data.done():
            self.data.set_exception(exc)


async def ask(gateway: str, port: int, request: Callable[[str], bytes], tries: int = TRIES) -> bytes:
    """What the router says to `request`, which is given the address it is sent from. Unreachable after `tries`.

    The socket is connected: only the router's own answers are heard (RFC 6886 section 3.1).
    """
    loop = asyncio.get_running_loop()
    for attempt in range(tries):
        transport, reply = await loop.create_datagram_endpoint(_Reply, remote_addr=(gateway, port))
        try:
            transport.sendto(request(transport.get_extra_info("sockname")[0]))
            async with asyncio.timeout(FIRST_WAIT_S * 2**attempt):  # wait_for loses a cancellation beside an answer
                return await reply.data
        except TimeoutError:
            continue
        except OSError as error:
            raise Unreachable(f"nat-pmp: {gateway} has no such service ({error})") from error
        finally:
            transport.close()
    raise Unreachable(f"nat-pmp: {gateway} did not answer {tries} requests")
