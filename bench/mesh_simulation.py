"""Ten thousand peers in one process: DHT lookups and membership, with churn, loss and liars.

The code that runs is what ships: `Dht` over `LocalMesh`, `Membership` under `gossip.fakes.Simulation`. Simulated
are the network and the clock; tables of the DHT are filled as long acquaintance would, with peers drawn at random.
Ceiling: a lookup needs about log2(n) / log2(2 k) steps when each answer is the best of k = 20 (2.5 at 10,000).

    python bench/mesh_simulation.py [--quick] [--part dht|gossip] [--peers N]
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import heapq
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from common.report import finish, machine, table
from shoal.core.clock import VirtualClock
from shoal.core.errors import Unreachable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.calls import Body, Incoming
from shoal.mesh.dht import messages
from shoal.mesh.dht.contact import BITS, Contact, worked
from shoal.mesh.dht.node import Dht, Ground, Options
from shoal.mesh.dht.record import topic_of
from shoal.mesh.fakes import LocalMesh
from shoal.mesh.gossip.fakes import Air, Change, Simulation
from shoal.mesh.peer_id import PeerId

K = 20
DIFFICULTY = 1
"""The work is not what is measured here; liars are taken to have paid for theirs."""


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Network:
    """`num_liars` of the peers take records and forget them, and name only each other, nearest to the key first."""

    def __init__(self, count: int, num_liars: int, paths: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.mesh = LocalMesh(VirtualClock())
        self.nodes: list[Dht] = []
        self.liars: list[Contact] = []
        for number in range(count):
            self._join(number < num_liars, paths)
        contacts = sorted([*self.liars, *(node._contact() for node in self.nodes)], key=lambda contact: contact.place)
        places = [contact.place for contact in contacts]
        for node in self.nodes:
            self._acquaint(node, contacts, places)

    def _join(self, is_liar: bool, paths: int) -> None:
        key = PrivateKey(self.random.randbytes(32))
        local = self.mesh.join(PeerId(key.public))
        address = Address(local.peer)
        if not is_liar:
            options = Options(difficulty=DIFFICULTY, paths=paths, seed=self.random.getrandbits(32))
            self.nodes.append(Dht(Ground(local, local, self.mesh.clock, key, lambda: address), options))
            return
        contact = worked(address, DIFFICULTY)
        self.liars.append(contact)
        local.unary("dht.find", self._lie(contact))
        local.unary("dht.put", self._forget)

    def _acquaint(self, node: Dht, contacts: list[Contact], places: list[int]) -> None:
        for shared in range(BITS):
            free = BITS - 1 - shared
            low = (node.own >> free ^ 1) << free
            first, last = bisect.bisect_left(places, low), bisect.bisect_left(places, low + (1 << free))
            for at in self.random.sample(range(first, last), min(K, last - first)):
                node.table.saw(contacts[at], 0.0)
            if shared > 20 and first == last:
                return

    def _lie(self, own: Contact) -> Callable[[Incoming, memoryview], Any]:
        async def answer(incoming: Incoming, body: memoryview) -> Body:
            find = messages.parse_find(body, incoming.peer)
            if self.random.random() < 0.2:
                raise Unreachable("a liar that is silent")
            target = int.from_bytes(find.key, "big")
            friends = heapq.nsmallest(K, self.liars, key=lambda contact: contact.place ^ target)
            return messages.found_bytes(own, friends, [])

        return answer

    async def _forget(self, incoming: Incoming, body: memoryview) -> Body:
        return messages.stored_bytes("")


async def dht_row(count: int, liars: float, churn: float, paths: int, lookups: int) -> dict[str, Any]:
    network = Network(count, int(liars * count), paths, seed=1)
    rng = random.Random(2)
    topics = [topic_of(f"blob {number}") for number in range(lookups)]
    authors = [rng.choice(network.nodes) for _ in topics]
    for author, topic in zip(authors, topics, strict=True):
        await author.provide(topic)
    gone = rng.sample([node for node in network.nodes if node not in authors], int(churn * len(network.nodes)))
    for node in gone:
        network.mesh.crash(node.peer)
    askers = [rng.choice([node for node in network.nodes if node not in gone]) for _ in topics]
    calls, size, began = network.mesh.num_calls, network.mesh.size_bytes, time.perf_counter()
    found = 0
    for asker, author, topic in zip(askers, authors, topics, strict=True):
        found += author.peer in {record.author for record in await asker.providers(topic)}
    calls, size = network.mesh.num_calls - calls, network.mesh.size_bytes - size
    seconds = time.perf_counter() - began
    hops = [float((await asker._walk(rng.randbytes(32), 1, None)).hops()) for asker in askers]
    return {
        "part": "dht", "peers": count, "liars": liars, "churn": churn, "paths": paths, "lookups": lookups,
        "found": found / lookups, "hops_mean": statistics.mean(hops), "hops_p99": percentile(hops, 0.99),
        "calls": calls / lookups, "kilobytes": size / lookups / 1e3, "ms_cpu": 1e3 * seconds / lookups,
    }  # fmt: skip


def gossip_row(count: int, loss: float, crashes: int, seconds: float) -> dict[str, Any]:
    """Some crash, one after another; later they come back. Loads change all the time."""
    changes: list[Change] = []
    simulation = Simulation(count, Air(loss=loss), changes.append, seed=1)
    simulation.run(5)
    size, started = simulation.num_bytes, simulation.now
    simulation.run(10)
    idle = (simulation.num_bytes - size) / count / (simulation.now - started)
    rng = random.Random(3)
    victims = dict.fromkeys(rng.sample(simulation.peers, crashes), 0.0)
    size, started = simulation.num_bytes, simulation.now
    for peer in victims:
        victims[peer] = simulation.now
        simulation.crash(peer)
        simulation.run(seconds / crashes)
    simulation.run(15)
    busy = (simulation.num_bytes - size) / count / (simulation.now - started)
    known = [change.at - victims[change.member.peer] for change in changes
             if change.member.status == "dead" and change.member.peer in victims]  # fmt: skip
    deaths = [change for change in changes if change.member.status == "dead"]
    false_deaths = [change for change in deaths if change.member.peer not in victims]
    suspected = {(change.member.peer, change.member.statement.incarnation) for change in changes
                 if change.member.status == "suspect" and change.member.peer not in victims}  # fmt: skip
    changes.clear()
    back, began = next(iter(victims)), simulation.now
    simulation.restart(back)
    simulation.run(5)
    spread = [change.at - began for change in changes if change.member.peer == back and change.member.status == "alive"]
    living = count - crashes
    return {
        "part": "gossip", "peers": count, "loss": loss, "crashes": crashes,
        "known_share": len(known) / crashes / living,
        "detect_p50_s": percentile(known, 0.5), "detect_p99_s": percentile(known, 0.99), "detect_max_s": max(known),
        "false_suspicions": len(suspected), "false_deaths_seen": len(false_deaths),
        "spread_p50_s": percentile(spread, 0.5), "spread_p99_s": percentile(spread, 0.99),
        "spread_share": len(spread) / living, "kb_per_min_idle": idle * 0.06, "kb_per_min_busy": busy * 0.06,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 peers instead of 10,000")
    parser.add_argument("--part", choices=("dht", "gossip"))
    parser.add_argument("--peers", type=int)
    arguments = parser.parse_args()
    count = arguments.peers or (1_000 if arguments.quick else 10_000)
    rows: list[dict[str, Any]] = []
    if arguments.part != "gossip":
        cases = [(0.0, 0.0, 3), (0.0, 0.2, 3), (0.1, 0.0, 3), (0.2, 0.2, 3), (0.3, 0.0, 1), (0.3, 0.0, 3)]
        sizes = [size for size in (100, 1_000) if size < count]
        plan = [*((size, 0.0, 0.0, 3) for size in sizes), *((count, *case) for case in cases)]
        rows += [asyncio.run(dht_row(*case, 100)) for case in plan]
        names = ("peers", "liars", "churn", "paths", "found", "hops_mean", "hops_p99", "calls", "kilobytes", "ms_cpu")
        table(names, [[f"{row[name]:.3g}" if name != "peers" else str(row[name]) for name in names] for row in rows])
    if arguments.part != "dht":
        fresh = [gossip_row(count, loss, 5, 5.0) for loss in (0.0, 0.05)]
        names = ("peers", "loss", "known_share", "detect_p50_s", "detect_p99_s", "detect_max_s", "false_suspicions",
                 "false_deaths_seen", "spread_p50_s", "spread_p99_s", "kb_per_min_idle", "kb_per_min_busy")  # fmt: skip
        table(names, [[f"{row[name]:.5g}" for name in names] for row in fresh])
        rows += fresh
    finish("mesh_simulation", rows, {}, machine())


if __name__ == "__main__":
    main()
