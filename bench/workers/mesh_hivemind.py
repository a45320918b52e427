"""hivemind 1.1.12: protobuf messages of bytes through its Go daemon. Bodies above 2 MB go in parts, as it must."""

from __future__ import annotations

from typing import Any

from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto.runtime_pb2 import Tensor
from mesh_calls import run

PART = 2**21


async def echo(request: Tensor, context: P2PContext) -> Tensor:
    return request


async def size(requests: Any, context: P2PContext) -> Any:
    total = 0
    async for request in requests:
        total += len(request.buffer)
    yield Tensor(buffer=total.to_bytes(8, "big"))


class Mesh:
    async def listen(self, carrier: str) -> dict[str, Any]:
        self.p2p = await P2P.create(auto_nat=False, nat_port_map=False)
        await self.p2p.add_protobuf_handler("echo", echo, Tensor)
        await self.p2p.add_protobuf_handler("size", size, Tensor, stream_input=True, stream_output=True)
        addresses = [str(address) for address in await self.p2p.get_visible_maddrs()]
        return {"addresses": addresses, "peer": self.p2p.peer_id.to_base58()}

    async def connect(self, addresses: list[str], peer: str) -> dict[str, Any]:
        self.p2p = await P2P.create(initial_peers=addresses, auto_nat=False, nat_port_map=False)
        self.peer = PeerID.from_base58(peer)
        await self.echo(b"warm")
        return {"path": "direct"}

    async def echo(self, body: bytes) -> bytes:
        return (await self.p2p.call_protobuf_handler(self.peer, "echo", Tensor(buffer=body), Tensor)).buffer

    async def size(self, body: bytes) -> bytes:
        async def parts() -> Any:
            for at in range(0, len(body), PART):
                yield Tensor(buffer=body[at : at + PART])

        answer = await self.p2p.iterate_protobuf_handler(self.peer, "size", parts(), Tensor)
        return [message.buffer async for message in answer][-1]


if __name__ == "__main__":
    run(Mesh())
