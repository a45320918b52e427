"""lattica 1.0.21 as its own documentation uses it; bodies are bytes, which its SDK wraps with pickle."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from lattica import ConnectionHandler, Lattica, rpc_method
from mesh_calls import run

PROTOCOLS = {"tcp": ("tcp", socket.SOCK_STREAM, ""), "quic": ("udp", socket.SOCK_DGRAM, "/quic-v1")}


def free_address(carrier: str) -> str:
    """It does not say which port it was given, so it is told one."""
    protocol, kind, suffix = PROTOCOLS[carrier]
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"/ip4/127.0.0.1/{protocol}/{probe.getsockname()[1]}{suffix}"


class Service(ConnectionHandler):
    @rpc_method
    def echo(self, body: bytes) -> bytes:
        return body

    @rpc_method
    def size(self, body: bytes) -> bytes:
        return len(body).to_bytes(8, "big")


def node(address: str, *bootstraps: str) -> Lattica:
    builder = Lattica.builder().with_listen_addrs([address]).with_mdns(False).with_upnp(False)
    return (builder.with_bootstraps(list(bootstraps)) if bootstraps else builder).build()


class Mesh:
    async def listen(self, carrier: str) -> dict[str, Any]:
        address = free_address(carrier)
        self.node = node(address)
        self.service = Service(self.node)
        peer = self.node.peer_id()
        return {"carrier": carrier, "peer": peer, "address": f"{address}/p2p/{peer}"}

    async def connect(self, carrier: str, peer: str, address: str) -> dict[str, Any]:
        self.node = node(free_address(carrier), address)
        self.service = Service(self.node)
        await asyncio.sleep(2)
        self.stub = self.service.get_stub(peer)
        self.stub.echo(b"warm").result()
        return {"path": "direct"}

    async def echo(self, body: bytes) -> Any:
        return await self.stub.echo(body)

    async def size(self, body: bytes) -> Any:
        return await self.stub.size(body)

    async def latency(self, count: int) -> dict[str, Any]:
        """Blocking, as its future is quickest."""
        body, times = bytes(128), []
        for _ in range(count):
            began = time.perf_counter()
            self.stub.echo(body).result()
            times.append(time.perf_counter() - began)
        return {"seconds": times}


if __name__ == "__main__":
    run(Mesh())
