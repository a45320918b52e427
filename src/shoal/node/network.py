"""What the network around this machine is: asked, not judged. A node for a few seconds, with an identity of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

import httpx

from shoal.core.clock import SystemClock
from shoal.core.errors import ShoalError
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.calls import CallOptions
from shoal.mesh.lan import sockets as lan_sockets
from shoal.mesh.nat.natpmp import default_gateway
from shoal.node.config import NodeConfig
from shoal.node.mesh_home import read_tickets
from shoal.node.mesh_parts import Parts, Place, mesh_parts
from shoal.node.meshing import PING
from shoal.node.net_doctor import Answered, Network, Reached

PEER_S = 8.0
RELAY_S = 5.0
ECHO_S = 1.0
MAX_PEERS = 4
SOMEWHERE_6 = ("2001:db8::1", 9)
"""Only routed to, never sent to: a UDP socket that connects sends nothing."""


async def look_at_network(config: NodeConfig) -> Network:
    """Everything `doctor --net` judges. InvalidRequest for a bad ticket. Takes up to a quarter of a minute."""
    clock = SystemClock()
    tickets = read_tickets(config.tickets, clock.wall())
    seeds = list(dict.fromkeys(address for ticket in tickets for address in ticket.bootstrap))[:MAX_PEERS]
    relays = config.relays or tuple(dict.fromkeys(url for seed in seeds for url in seed.relays))
    secret = tickets[0].secret if tickets else None
    place = Place(PrivateKey(os.urandom(32)), config.mesh_host, 0, relays, secret)
    async with mesh_parts(place, clock) as parts:
        parts.switchboard.start()
        peers = await asyncio.gather(*(_reach(parts, seed) for seed in seeds))
        if parts.nat is not None:
            reached = (seed.peer for seed, found in zip(seeds, peers, strict=True) if not found.failure)
            await parts.nat.refresh(tuple(reached))
        answers = asyncio.gather(*(_relay(url) for url in relays))
        return Network(
            None if parts.nat is None else parts.nat.nat,
            _has_ipv6(),
            tuple(peers),
            tuple(await answers),
            await _mapping(parts),
            tuple([await _multicast(interface) for interface in lan_sockets.interfaces()]),
        )


async def _reach(parts: Parts, seed: Address) -> Reached:
    parts.switchboard.learn(seed, "ticket")
    name = seed.peer.short
    try:
        began = time.time()
        answer = bytes(await parts.rpc.call(seed.peer, PING, b"", CallOptions(PEER_S)))
        ended = time.time()
    except ShoalError as error:
        return Reached(name, failure=str(error))
    report = next((item for item in parts.switchboard.snapshot() if item.peer == seed.peer), None)
    link = None if report is None else report.link
    theirs = int(answer) / 1000 if answer.isdigit() and len(answer) < 20 else None
    skew = None if theirs is None else theirs - (began + ended) / 2
    if link is None:
        return Reached(name, failure="the link ended at once", skew_s=skew)
    return Reached(name, link.path, link.carrier, link.rtt_s, skew)


async def _relay(url: str) -> Answered:
    try:
        async with httpx.AsyncClient(timeout=RELAY_S) as client:
            began = time.perf_counter()
            response = await client.get(f"{url.rstrip('/')}/ping")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answered(url, str(error) or type(error).__name__, is_good=False)
    took_ms = (time.perf_counter() - began) * 1e3
    return Answered(url, f"{response.status_code} in {took_ms:.0f} ms", response.status_code == 200)


async def _mapping(parts: Parts) -> tuple[Answered, ...]:
    gateway = default_gateway()
    if gateway is None or parts.nat is None:
        return ()
    await parts.nat.map_port(gateway)
    steps = [step for step in parts.nat.journal.steps() if "for a port" in step.what]
    found = tuple(Answered(step.what, step.outcome, step.is_good) for step in steps)
    await parts.nat.close(gateway)
    return found


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect(SOMEWHERE_6)
        return True
    return False


async def _multicast(interface: lan_sockets.Interface) -> Answered:
    """Whether a datagram to the group on a port of its own comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    word = os.urandom(16)
    try:
        with lan_sockets.opened(interface, port) as heard:
            loop = asyncio.get_running_loop()
            heard.sendto(word, lan_sockets.destination(interface, port))
            async with asyncio.timeout(ECHO_S):
                while await loop.sock_recv(heard, 64) != word:
                    continue
    except TimeoutError:
        return Answered(interface.label, "what is sent is not heard", is_good=False)
    except OSError as error:
        return Answered(interface.label, lan_sockets.why(error, interface), is_good=False)
    return Answered(interface.label, "works", is_good=True)
