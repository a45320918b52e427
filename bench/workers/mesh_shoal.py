"""Shoal's calls over one of its carriers; `path` in the answer of `connect` says how it went."""

from __future__ import annotations

import asyncio
from typing import Any

from mesh_calls import run

from shoal.core.clock import SystemClock
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.calls import CallOptions, Incoming
from shoal.mesh.carrier import Carrier, Link
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.relay import RelayConfig, RelayServer
from shoal.mesh.rpc import Introduction, Rpc
from shoal.mesh.tcp import TcpOptions, listen_tcp

OPTIONS = CallOptions(timeout_s=60)


class Shoal:
    def __init__(self) -> None:
        self.key = PrivateKey.generate()
        self.me = PeerId(self.key.public)
        self.link: Link | None = None
        self.tasks: list[asyncio.Task[None]] = []

    async def listen(self, carrier: str) -> dict[str, Any]:
        relays: tuple[str, ...] = ()
        if carrier == "relay":
            self.relay = await RelayServer.start(RelayConfig(host="127.0.0.1", port=0))
            relays = (self.relay.url,)
        made = await self._start(carrier, relays)
        address = made.address()
        udp = () if carrier == "relay" else address.udp
        return {"carrier": carrier, "peer": str(self.me), "udp": udp, "tcp": address.tcp, "relays": relays}

    async def connect(
        self, carrier: str, peer: str, udp: list[str], tcp: list[str], relays: list[str]
    ) -> dict[str, Any]:
        self.peer = PeerId.parse(peer)
        made = await self._start(carrier, tuple(relays))
        self.link = await made.dial(Address(self.peer, tuple(udp), tuple(tcp), tuple(relays)), 10.0)
        await self.echo(b"warm")
        return {"path": self.link.info().path}

    async def echo(self, body: bytes) -> memoryview:
        return await self.rpc.call(self.peer, "echo", body, OPTIONS)

    async def size(self, body: bytes) -> memoryview:
        return await self.rpc.call(self.peer, "size", body, OPTIONS)

    async def _start(self, carrier: str, relays: tuple[str, ...]) -> Carrier:
        self.rpc = Rpc(Introduction(self.me, "bench"), self._connected, SystemClock())
        self.rpc.unary("echo", echo)
        self.rpc.unary("size", size)
        made: Carrier
        if carrier == "tcp":
            made = await listen_tcp(self.key, TcpOptions(listen=("127.0.0.1:0",)))
        else:
            made = await QuicCarrier.start(QuicConfig(self.key, "127.0.0.1:0", relays))
        self.tasks.append(asyncio.create_task(self._accept(made)))
        return made

    async def _connected(self, peer: PeerId) -> Link:
        assert self.link is not None
        return self.link

    async def _accept(self, carrier: Carrier) -> None:
        while True:
            self.rpc.accepted(await carrier.accept())


async def echo(incoming: Incoming, body: memoryview) -> memoryview:
    return body


async def size(incoming: Incoming, body: memoryview) -> bytes:
    return body.nbytes.to_bytes(8, "big")


if __name__ == "__main__":
    run(Shoal())
