"""A peer that shares a file, or fetches one from several peers, over the TCP carrier."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from loop import serve

from shoal.core.clock import SystemClock
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.carrier import Link
from shoal.mesh.content import Fetcher, Ground, Job, Library, Shared, manifest_of
from shoal.mesh.peer_id import PeerId
from shoal.mesh.rpc import Introduction, Rpc
from shoal.mesh.tcp import TcpCarrier, TcpOptions, listen_tcp

LOOP = asyncio.new_event_loop()


class Shoal:
    def __init__(self) -> None:
        self.key = PrivateKey.generate()
        self.links: dict[PeerId, Link] = {}
        self.rpc = Rpc(Introduction(PeerId(self.key.public), "bench"), self.link, SystemClock())

    async def start(self) -> TcpCarrier:
        self.carrier = await listen_tcp(self.key, TcpOptions(listen=("127.0.0.1:0",)))
        self.accepting = asyncio.create_task(self.accept())
        return self.carrier

    async def link(self, peer: PeerId) -> Link:
        return self.links[peer]

    async def accept(self) -> None:
        while True:
            self.rpc.accepted(await self.carrier.accept())

    async def share(self, path: str) -> dict[str, Any]:
        carrier = await self.start()
        manifest = manifest_of(Path(path))
        library = Library(SystemClock(), bytes_per_s=1e12)
        library.share(Shared(Path(path), manifest))
        library.register(self.rpc)
        return {"peer": str(PeerId(self.key.public)), "tcp": carrier.address().tcp, "blob": manifest.id.hex()}

    async def connect(self, peers: list[dict[str, Any]]) -> dict[str, Any]:
        await self.start()
        for item in peers:
            peer = PeerId.parse(item["peer"])
            self.links[peer] = await self.carrier.dial(Address(peer, (), tuple(item["tcp"])), 10.0)
        return {}

    async def fetch(self, blob: str, path: str, peers: int, older: list[str]) -> dict[str, Any]:
        chosen = list(self.links)[:peers]

        async def providers(blob: bytes) -> list[PeerId]:
            return chosen

        job = Job(bytes.fromhex(blob), Path(path), older=tuple(map(Path, older)))
        began = time.perf_counter()
        fetched = await Fetcher(Ground(self.rpc, SystemClock(), providers)).fetch(job)
        return {"seconds": time.perf_counter() - began, "bytes": fetched.fetched_bytes}


if __name__ == "__main__":
    shoal = Shoal()
    threading.Thread(target=LOOP.run_forever, daemon=True).start()

    def ask(name: str) -> Any:
        return lambda **given: asyncio.run_coroutine_threadsafe(getattr(shoal, name)(**given), LOOP).result()

    serve({name: ask(name) for name in ("share", "connect", "fetch")})
