"""One node of the lab in a process of its own: quic carrier, calls, NAT service, and a relay where asked.

    python natworker.py     reads {"id", "command", ...} a line, writes {"id", "result" or "error"} a line

Commands: start, stop, relay, kill_relay, relay_stats, learn, refresh, connect, settle, echo, chat, meet, info, where,
map_port.
The next test to drive it is a chat through every cell: add a command, not a second worker.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from shoal.core.clock import SystemClock
from shoal.core.errors import ShoalError, Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh import parse
from shoal.mesh.address import Address
from shoal.mesh.calls import CallOptions, Incoming
from shoal.mesh.carrier import Link, LinkInfo
from shoal.mesh.nat import Introducer, NatService, answer_observe, meet, natpmp
from shoal.mesh.peer_id import PeerId
from shoal.mesh.quic import QuicCarrier, QuicConfig
from shoal.mesh.relay import RelayConfig, RelayServer
from shoal.mesh.rpc import Introduction, Rpc

DIAL_S = 8.0


class Node:
    """Links by peer; a switchboard of ten lines."""

    def __init__(self, carrier: QuicCarrier, clock: SystemClock) -> None:
        self.carrier = carrier
        self.known: dict[PeerId, Address] = {}
        self.links: dict[PeerId, Link] = {}
        self.rpc = Rpc(Introduction(carrier.address().peer, "natlab"), self.link, clock)
        self.nat = NatService(carrier, self.rpc, clock)
        self.introducer = Introducer(self.rpc, self.info_of, self.dial_together, self.nat.journal, clock)
        answer_observe(self.rpc)
        self.introducer.answer(self.rpc)
        self.rpc.unary("lab.echo", echo)
        self.accepting = asyncio.create_task(self.accept())

    async def link(self, peer: PeerId) -> Link:
        link = self.links.get(peer)
        if link is None or not link.is_open:
            if peer not in self.known:
                raise Unreachable(f"peer {peer.short}: no address")
            link = self.links[peer] = await self.carrier.dial(self.known[peer], DIAL_S)
        return link

    async def dial_together(self, address: Address, timeout_s: float) -> Link:
        self.carrier.expect(address.peer, timeout_s)
        link = await self.carrier.dial_together(address, timeout_s)
        self.links.setdefault(address.peer, link)
        return link

    def info_of(self, peer: PeerId) -> LinkInfo | None:
        link = self.links.get(peer)
        return link.info() if link is not None and link.is_open else None

    async def accept(self) -> None:
        while True:
            link = await self.carrier.accept()
            old = self.links.get(link.peer)
            if old is None or not old.is_open:
                self.links[link.peer] = link
            self.rpc.accepted(link)

    async def close(self) -> None:
        self.accepting.cancel()
        await self.introducer.close()
        await self.rpc.close()
        await self.carrier.close()


async def echo(incoming: Incoming, body: memoryview) -> bytes:
    return bytes(body)


class Worker:
    def __init__(self) -> None:
        self.clock = SystemClock()
        self.node: Node | None = None
        self.relay_server: RelayServer | None = None

    @property
    def running(self) -> Node:
        assert self.node is not None
        return self.node

    async def start(self, seed: int, relays: list[str], bind: str | None = None) -> dict[str, Any]:
        if self.node is not None:
            await self.node.close()
        begin = time.monotonic()
        key = PrivateKey(seed.to_bytes(32, "big"))
        self.node = Node(await QuicCarrier.start(QuicConfig(key, bind, tuple(relays))), self.clock)
        return {"seconds": time.monotonic() - begin, "address": self.address()}

    async def stop(self) -> None:
        if self.node is not None:
            await self.node.close()
        self.node = None

    def address(self) -> list[Any]:
        address = self.running.carrier.address()
        return [str(address.peer), parse.address_fields(address)]

    async def learn(self, address: list[Any]) -> None:
        where = parse.address(address[1], PeerId.parse(address[0]))
        self.running.known[where.peer] = where

    async def relay(self, host: str, port: int) -> str:
        self.relay_server = await RelayServer.start(RelayConfig(host, port))
        return self.relay_server.url

    async def kill_relay(self) -> None:
        assert self.relay_server is not None
        await self.relay_server.close()

    async def relay_stats(self) -> dict[str, Any]:
        assert self.relay_server is not None
        stats = self.relay_server.stats()
        return {"bytes": stats.forwarded_bytes, "clients": stats.clients, "dropped": stats.dropped}

    async def refresh(self, observers: list[str]) -> dict[str, Any]:
        nat = await self.running.nat.refresh(tuple(PeerId.parse(item) for item in observers))
        steps = [f"{step.what}: {step.outcome}" for step in self.running.nat.journal.steps()]
        return {"kind": nat.kind, "external": nat.external, "address": self.address(), "steps": steps}

    async def map_port(self) -> dict[str, Any]:
        """Ask this host's router for a port, as a node does at its start."""
        gateway = natpmp.default_gateway()
        assert gateway is not None
        await self.running.nat.map_port(gateway)
        steps = [step for step in self.running.nat.journal.steps() if "for a port by" in step.what]
        by = [step.what.rpartition(" ")[2] for step in steps if step.is_good]
        if by == ["PCP"]:  # the older protocol on the same router, for another port
            by += ["NAT-PMP"] if (await natpmp.map_port(gateway, 40_000)).external.endswith(":40000") else []
            await natpmp.unmap_port(gateway, 40_000)
        return {"address": self.address(), "by": by, "outcome": steps[-1].outcome}

    async def connect(self, peer: str) -> dict[str, Any]:
        begin = time.monotonic()
        link = await self.running.link(PeerId.parse(peer))
        return {"seconds": time.monotonic() - begin, "path": link.info().path, "remote": link.info().remote}

    async def info(self, peer: str) -> dict[str, Any]:
        info = self.running.links[PeerId.parse(peer)].info()
        return {"path": info.path, "remote": info.remote, "rtt_s": info.rtt_s}

    async def settle(self, peer: str, within_s: float) -> dict[str, Any]:
        """Wait until the link is no longer relayed, or until time is up."""
        begin = time.monotonic()
        link = self.running.links[PeerId.parse(peer)]
        while link.info().path == "relayed" and time.monotonic() - begin < within_s:
            await asyncio.sleep(0.01)
        return {"seconds": time.monotonic() - begin, "path": link.info().path, "remote": link.info().remote}

    async def echo(self, peer: str, size: int = 128) -> float:
        begin = time.monotonic()
        body = bytes(size)
        answer = await self.running.rpc.call(PeerId.parse(peer), "lab.echo", body, CallOptions(timeout_s=30))
        assert bytes(answer) == body
        return time.monotonic() - begin

    async def chat(self, peer: str, seconds: float, patience_s: float = 30.0) -> dict[str, Any]:
        """A small call after the other; how many, how many had to be made again, the longest silence."""
        other = PeerId.parse(peer)
        begin = last = time.monotonic()
        answered = failed = 0
        silence = 0.0
        links = {id(self.running.links[other])}
        while time.monotonic() - begin < seconds:
            try:
                await self.running.rpc.call(other, "lab.echo", b"?", CallOptions(timeout_s=patience_s))
            except ShoalError:
                failed += 1
                continue
            now = time.monotonic()
            silence, last, answered = max(silence, now - last), now, answered + 1
            links.add(id(self.running.links[other]))
            await asyncio.sleep(0.01)
        path = self.running.links[other].info().path
        return {"answered": answered, "failed": failed, "silence_s": silence, "links": len(links), "path": path}

    async def where(self) -> dict[str, Any]:
        """The relay this node listens at, and every relay its address names."""
        carrier = self.running.carrier
        return {"home": carrier.home_relay, "relays": carrier.address().relays}

    async def meet(self, common: str, wanted: str) -> dict[str, Any]:
        begin = time.monotonic()
        link = await meet(self.running.rpc, PeerId.parse(common), PeerId.parse(wanted), self.running.dial_together)
        self.running.links[link.peer] = link
        return {"seconds": time.monotonic() - begin, "path": link.info().path}


COMMANDS = ("start", "stop", "relay", "kill_relay", "relay_stats", "learn", "refresh", "connect", "settle", "echo",
            "chat", "meet", "info", "where", "map_port")  # fmt: skip


async def main() -> None:
    worker = Worker()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    while line := await reader.readline():
        task = asyncio.create_task(serve(worker, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await worker.stop()
    if worker.relay_server is not None:
        await worker.relay_server.close()


async def serve(worker: Worker, request: dict[str, Any]) -> None:
    number, command = request.pop("id"), request.pop("command")
    try:
        assert command in COMMANDS, command
        answer = {"id": number, "result": await getattr(worker, command)(**request)}
    except Exception as error:
        answer = {"id": number, "error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
