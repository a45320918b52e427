"""Merging entries into an empty replica, every signature checked, against CRDT libraries that check nothing; and what
two replicas say to each other when little differs.

Claim: at least 6,000 entries per second of one core with a signature each, at least 30,000 operations where a hundred
share one; two replicas of 10,000 authors that differ in ten exchange less than 64 kB to be the same again.

    python bench/store.py [--quick]

pycrdt 0.14.13 and loro 1.17.1 merge the same keys and values from as many updates. They name authors by a number and
sign nothing, so nobody else's word can be checked; their figures show what trust costs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import defaultdict
from contextlib import ExitStack

from common.environment import environment
from common.peer import Peer
from common.report import finish, machine, summary, table
from shoal.core.clock import SystemClock
from shoal.crypto.keys import PrivateKey
from shoal.mesh.fakes import LocalMesh
from shoal.mesh.peer_id import PeerId
from shoal.mesh.store import Ground, Namespace, Replica, Store, own_prefix
from shoal.mesh.store.entry import Put, parse_entry

SPACE = Namespace("bench")
PEERS = ("pycrdt", "loro")
NOW = time.time()


def written(count: int, batch: int) -> list[list[bytes]]:
    """Entries as they come from a peer."""
    replica, key = Replica(SPACE), PrivateKey(bytes(32))
    name = own_prefix(key.public)
    for first in range(0, count, batch):
        puts = [Put(f"{name}key/{number}", b"v" * 24) for number in range(first, first + batch)]
        replica.write(key, puts, NOW)
    return [entry.row() for entry in replica.logs[key.public].entries]


def merge(rows: list[list[bytes]]) -> float:
    replica = Replica(SPACE)
    began = time.process_time()
    received = replica.receive([parse_entry(row) for row in rows], NOW)
    seconds = time.process_time() - began
    assert len(received.accepted) == len(rows)
    return seconds


async def small_difference(num_authors: int, num_changed: int) -> tuple[int, int]:
    """Calls and bytes until two replicas are the same again."""
    clock = SystemClock()
    mesh = LocalMesh(clock)
    keys = [PrivateKey(random.Random(number).randbytes(32)) for number in range(num_authors)]
    one, other = (
        Store(Ground(local, local, clock, keys[number], list), SPACE)
        for number, local in enumerate(mesh.join(PeerId(key.public)) for key in keys[:2])
    )
    for key in keys:
        entries = one.replica.write(key, [Put(own_prefix(key.public), b"v" * 24)], NOW).accepted
        other.replica.receive(entries, NOW, is_trusted=True)
    for key in keys[:: num_authors // num_changed][:num_changed]:
        one.replica.write(key, [Put(own_prefix(key.public), b"w" * 24)], NOW)
    await other.synchronise(PeerId(keys[0].public))
    assert all(other.replica.logs[key.public].head == one.replica.logs[key.public].head for key in keys)
    return mesh.num_calls, mesh.size_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    count, turns, authors = (2000, 3, 1000) if quick else (10_000, 7, 10_000)
    batches = {batch: written(count, batch) for batch in (1, 100)}
    figures = defaultdict[str, list[float]](list)
    with ExitStack() as stack:
        python = environment("crdt", ("pycrdt==0.14.13", "loro==1.17.1"))
        worker = stack.enter_context(Peer("crdt", python, "crdt_worker.py"))
        for _ in range(turns):
            for batch, rows in batches.items():
                figures[f"shoal, {batch} a signature"].append(count / merge(rows))
                for kind in PEERS:
                    answer = worker.ask("merge", kind=kind, count=count, batch=batch)
                    figures[f"{kind}, {batch} an update"].append(answer["rate"])
    calls, size = asyncio.run(small_difference(authors, 10))
    rows_out = [{"who": who, **summary(values)} for who, values in figures.items()]
    table(
        ("operations per CPU second", "median", "min", "max"),
        [(row["who"], *(f"{row[key]:,.0f}" for key in ("median", "min", "max"))) for row in rows_out],  # type: ignore[misc]
    )
    print(f"10 of {authors:,} authors differ: {calls} calls, {size:,} bytes to be the same again")
    middle = {who: summary(values)["median"] for who, values in figures.items()}
    ratios = {
        "store_single_of_6000": middle["shoal, 1 a signature"] / 6000,
        "store_batched_of_30000": middle["shoal, 100 a signature"] / 30_000,
        **{f"store_{kind}_{batch}": middle[f"shoal, {batch} a signature"] / middle[f"{kind}, {batch} an update"]
           for kind in PEERS for batch in batches},
        "store_small_difference": 64_000 / size,
    }  # fmt: skip
    finish("store", [*rows_out, {"authors": authors, "differ": 10, "calls": calls, "bytes": size}], ratios, machine())


if __name__ == "__main__":
    main()
