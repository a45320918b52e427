"""A swarm of real nodes on this machine that peers join and leave all the time, under load: is any request lost?

Every second a node is killed (SIGKILL, every other time the busiest one) or another one joins, by turns, while clients
stream completions with fixed seeds from endpoints that have no model of their own. A request is lost if it ends in an
error or if its text is not, byte for byte, what one node alone answers. The model is tiny: what is measured is the
mesh, and how long a start takes is Python's imports. Ceiling: none lost, and the times without churn.

    python bench/swarm_churn.py [--quick] [--nodes N] [--seconds S] [--clients C]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import resource
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from common.report import finish, machine, table
from common.swarm import Node, Swarm, swarm

ENDPOINTS = 3
QUESTIONS = 16
TOKENS = 700
PERIOD_S = 1.0
LOOK_S = 0.25
STARTING = 4
"""Nodes started at once in the beginning."""
SETTLE_S = 120.0
IDLE_S = 10.0
LEAST = 0.5
"""Of the nodes there were: with fewer left none is killed until starts have caught up."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Seconds; `trouble` says what was wrong, "" if nothing."""

    first_s: float
    total_s: float
    trouble: str


@dataclass(slots=True)
class Seen:
    """Membership at the endpoints: peer -> when it was killed or was ready, and how long until an endpoint asked it
    last (no link any more), knew it gone, and would ask it. `reasons`: how asking ended where it was not answered.
    """

    killed: dict[str, float] = field(default_factory=dict)
    joined: dict[str, float] = field(default_factory=dict)
    doubt_s: list[float] = field(default_factory=list)
    death_s: list[float] = field(default_factory=list)
    birth_s: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    decided: set[tuple[str, str, float]] = field(default_factory=set)


def question(number: int) -> dict[str, Any]:
    prompt = f"{number}: " + "the sea " * (number % 5 + 1)
    return {"model": "tiny", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0.8, "seed": number,
            "ignore_eos": True, "stream": True}  # fmt: skip


async def ask(client: httpx.AsyncClient, url: str, number: int) -> tuple[str, Reply]:
    """The text of a streamed answer and how it went."""
    began, first, text, trouble, is_done = time.perf_counter(), 0.0, "", "", False
    try:
        async with client.stream("POST", f"{url}/v1/completions", json=question(number)) as response:
            if response.status_code != 200:
                trouble = f"{response.status_code}: {(await response.aread())[:300].decode()}"
            async for line in lines(response.aiter_bytes()):
                first = first or time.perf_counter()
                if line == b"data: [DONE]":
                    is_done = True
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    trouble = trouble or str(event.get("error", ""))
                    text += "".join(choice["text"] for choice in event.get("choices", ()))
    except httpx.HTTPError as error:
        trouble = f"{type(error).__name__}: {error}"
    ended = time.perf_counter()
    return text, Reply((first or ended) - began, ended - began, trouble or ("" if is_done else "it stopped"))


async def lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """httpx's own lines also end at U+2028 and its like, which JSON may hold."""
    rest = b""
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line


@dataclass(slots=True)
class Load:
    """Clients that ask one endpoint after the other; `expected` has the right text of each question."""

    swarm: Swarm
    endpoints: Sequence[Node]
    expected: dict[int, str]
    replies: list[Reply] = field(default_factory=list)
    asked: Any = field(default_factory=itertools.count)
    is_over: bool = False

    async def client(self) -> None:
        while not self.is_over:
            turn = next(self.asked)
            number = turn % QUESTIONS
            text, reply = await ask(self.swarm.client, self.endpoints[turn % len(self.endpoints)].url, number)
            if not reply.trouble and text != self.expected[number]:
                reply = Reply(reply.first_s, reply.total_s, _difference(text, self.expected[number]))
            self.replies.append(reply)

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        """Whoever is in the middle of an answer at the end gets all of it."""
        self.is_over, self.replies = False, []
        tasks = [asyncio.create_task(self.client()) for _ in range(clients)]
        try:
            yield
            self.is_over = True
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _difference(found: str, expected: str) -> str:
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((index for index, (one, other) in pairs if one != other), min(len(found), len(expected)))
    return f"another text from character {at} on: {len(found)} characters, expected {len(expected)}"


async def populate(found: Swarm, count: int) -> list[Node]:
    """Endpoints first; the others join them, a few at a time."""
    first = await found.start("endpoint-0", None, model="none")
    rest = [found.start(f"endpoint-{number}", first.ticket, model="none") for number in range(1, ENDPOINTS)]
    endpoints = [first, *await asyncio.gather(*rest)]
    gate = asyncio.Semaphore(STARTING)

    async def one(number: int) -> None:
        async with gate:
            await found.start(f"node-{number}", first.ticket)

    async with asyncio.TaskGroup() as starting:  # one that fails ends the others, before the swarm is swept up
        for number in range(count - ENDPOINTS):
            starting.create_task(one(number))
    return endpoints


async def known(found: Swarm, endpoint: Node) -> set[str]:
    """Peers this endpoint would ask."""
    return usable((await found.mesh(endpoint))["peers"])


def usable(peers: Sequence[dict[str, Any]]) -> set[str]:
    return {peer["id"] for peer in peers if peer["models"] and peer["state"] != "gone"}


async def settle(found: Swarm, endpoints: Sequence[Node]) -> float:
    """Until every endpoint would ask every node; how long that took."""
    began = time.perf_counter()
    wanted = {node.id for node in found.living()} - {node.id for node in endpoints}
    while not all([wanted <= await known(found, endpoint) for endpoint in endpoints]):
        if time.perf_counter() - began > SETTLE_S:
            raise RuntimeError(f"the endpoints do not know all nodes after {SETTLE_S:.0f} s")
        await asyncio.sleep(LOOK_S)
    return time.perf_counter() - began


async def idle_share(found: Swarm) -> tuple[float, float]:
    """Of one core, a node, median and most, when nobody asks anything."""
    before = {node.name: node.cpu_s() for node in found.living()}
    await asyncio.sleep(IDLE_S)
    shares = [(node.cpu_s() - before[node.name]) / IDLE_S for node in found.living() if node.name in before]
    return statistics.median(shares), max(shares)


async def churn(found: Swarm, endpoints: Sequence[Node], seconds: float, seen: Seen) -> tuple[int, int]:
    """Kill and start by turns; how many of each."""
    dice, stable, starting = random.Random(0), {node.name for node in endpoints}, list[asyncio.Task[Node]]()
    original = len(found.nodes)
    kills, until = 0, time.perf_counter() + seconds
    for turn in itertools.count():
        if time.perf_counter() >= until:
            break
        if turn % 2:
            starting.append(asyncio.create_task(_newcomer(found, endpoints[0].ticket, turn, seen)))
        else:
            nodes = [node for node in found.living() if node.id and node.name not in stable]
            if len(nodes) <= LEAST * len(found.nodes[ENDPOINTS:original]):  # starts are behind: kill later
                await asyncio.sleep(PERIOD_S)
                continue
            victim = await _busiest(found, nodes) if kills % 2 else dice.choice(nodes)
            found.kill(victim)
            seen.killed[victim.id] = time.perf_counter()
            seen.joined.pop(victim.id, None)
            kills += 1
        await asyncio.sleep(PERIOD_S)
    await asyncio.gather(*starting)
    return kills, len(starting)


async def _newcomer(found: Swarm, ticket: str, turn: int, seen: Seen) -> Node:
    node = await found.start(f"newcomer-{turn}", ticket)
    seen.joined[node.id] = time.perf_counter()
    return node


async def _busiest(found: Swarm, nodes: Sequence[Node]) -> Node:
    async def running(node: Node) -> int:
        with suppress(httpx.HTTPError):
            return int((await found.client.get(f"{node.url}/v1/stats", timeout=5)).json()["num_running"])
        return 0

    loads = await asyncio.gather(*(running(node) for node in nodes))
    return nodes[max(range(len(nodes)), key=loads.__getitem__)]


async def watch(found: Swarm, endpoints: Sequence[Node], seen: Seen) -> None:
    """Until cancelled: when does each endpoint stop, or begin, to count on a peer, and why did it ask another one."""
    noted: set[tuple[str, str, str]] = set()
    for endpoint in itertools.cycle(endpoints):
        with suppress(httpx.HTTPError):
            view = await found.mesh(endpoint)
            linked = {peer["id"] for peer in view["peers"] if peer["state"] == "connected"}
            there = usable(view["peers"])
            note(noted, endpoint, seen.killed, seen.doubt_s, "doubt", seen.killed.keys() - linked)
            note(noted, endpoint, seen.killed, seen.death_s, "death", seen.killed.keys() - there)
            note(noted, endpoint, seen.joined, seen.birth_s, "birth", seen.joined.keys() & there)
            for item in view["decisions"]:
                reason(seen, item)
        await asyncio.sleep(LOOK_S / len(endpoints))


def note(
    noted: set[tuple[str, str, str]], endpoint: Node, events: dict[str, float], latencies: list[float], kind: str,
    happened: set[str],
) -> None:  # fmt: skip
    for peer in happened:
        if (kind, endpoint.id, peer) not in noted:
            noted.add((kind, endpoint.id, peer))
            latencies.append(time.perf_counter() - events[peer])


def reason(seen: Seen, decision: dict[str, Any]) -> None:
    """Count how it ended, once, in words without names and numbers."""
    name = (decision["request_id"], decision["provider"], decision["at"])
    if name not in seen.decided:
        seen.decided.add(name)
        if decision["outcome"] != "answered":
            seen.reasons[re.sub(r"\b[a-z2-7]{10,}\b|[0-9.]+", "_", decision["outcome"])[:120]] += 1


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def row(what: str, replies: Sequence[Reply]) -> dict[str, Any]:
    lost = [reply for reply in replies if reply.trouble]
    firsts, totals = [reply.first_s for reply in replies], [reply.total_s for reply in replies]
    return {
        "what": what, "requests": len(replies), "lost": len(lost),
        "ttft_p50_s": percentile(firsts, 0.5), "ttft_p99_s": percentile(firsts, 0.99),
        "total_p50_s": percentile(totals, 0.5), "total_p99_s": percentile(totals, 0.99),
        "troubles": dict(Counter(reply.trouble[:160] for reply in lost).most_common(5)),
    }  # fmt: skip


async def outcomes(found: Swarm, endpoints: Sequence[Node]) -> Counter[str]:
    total: Counter[str] = Counter()
    for endpoint in endpoints:
        total.update((await found.mesh(endpoint))["asked"])
    return total


def cpu_s() -> float:
    """Of all nodes that have ended, which at the end are all."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def run(nodes: int, seconds: float, clients: int) -> None:
    seen = Seen()
    async with swarm() as found:
        endpoints = await populate(found, nodes)
        settled_s = await settle(found, endpoints)
        started_cpu_s = sum(node.cpu_s() for node in found.living())
        idle, most = await idle_share(found)
        memory = [node.memory_bytes() / 1e6 for node in found.living()]
        alone = next(node for node in found.nodes if node not in endpoints)
        expected = {number: (await ask(found.client, alone.url, number))[0] for number in range(QUESTIONS)}
        load = Load(found, endpoints, expected)
        async with load.running(clients):
            await asyncio.sleep(min(20.0, seconds / 2))
        rows = [row("calm", load.replies)]
        watching = asyncio.create_task(watch(found, endpoints, seen))
        before = await outcomes(found, endpoints)
        async with load.running(clients):
            kills, joins = await churn(found, endpoints, seconds, seen)
        watching.cancel()
        rows.append(row("churn", load.replies))
        asked = await outcomes(found, endpoints)
        asked.subtract(before)
    rows[1] |= {
        "kills": kills, "joins": joins, "failed_over": sum(n for name, n in asked.items() if "failed" in name),
        "doubt_p50_s": percentile(seen.doubt_s, 0.5), "doubt_p99_s": percentile(seen.doubt_s, 0.99),
        "death_p50_s": percentile(seen.death_s, 0.5), "death_p99_s": percentile(seen.death_s, 0.99),
        "birth_p50_s": percentile(seen.birth_s, 0.5), "birth_p99_s": percentile(seen.birth_s, 0.99),
        "reasons": dict(seen.reasons.most_common(8)),
    }  # fmt: skip
    show(rows)
    about = {**machine(), "nodes": nodes, "seconds": seconds, "clients": clients, "settled_s": round(settled_s, 1),
             "idle_core_share": round(idle, 4), "idle_core_share_most": round(most, 4),
             "cpu_s": round(cpu_s()), "cpu_s_started": round(started_cpu_s),
             "memory_mb_median": round(statistics.median(memory)), "memory_mb_most": round(max(memory))}  # fmt: skip
    print(f"a node: {about['memory_mb_median']} MB resident, idle {idle:.1%} of a core (most {most:.1%}), "
          f"{started_cpu_s / nodes:.1f} CPU-s until all know all; {rows[1]['kills']} killed, "
          f"{rows[1]['joins']} joined, {rows[1]['failed_over']} fail-overs")  # fmt: skip
    for event, words in (("doubt", "asked last"), ("death", "known dead"), ("birth", "a newcomer asked")):
        print(f"{words} after p50 {rows[1][event + '_p50_s']:.2f} s, p99 {rows[1][event + '_p99_s']:.2f} s")
    finish("swarm_churn", rows, {"kept": 1 - rows[1]["lost"] / max(1, rows[1]["requests"])}, about)


def show(rows: Sequence[dict[str, Any]]) -> None:
    times = ("ttft_p50_s", "ttft_p99_s", "total_p50_s", "total_p99_s")
    table(
        ("", "requests", "lost", *times),
        [(item["what"], str(item["requests"]), str(item["lost"]), *(f"{item[name]:.3f}" for name in times))
         for item in rows],
    )  # fmt: skip
    for item in rows:
        for trouble, count in item["troubles"].items():
            print(f"{item['what']}: {count} x {trouble}")
        for words, count in item.get("reasons", {}).items():
            print(f"  moved on {count} x: {words}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="12 nodes, 30 s")
    parser.add_argument("--nodes", type=int, help="endpoints included; default 50")
    parser.add_argument("--seconds", type=float, help="of churn; default 120")
    parser.add_argument("--clients", type=int, help="streams at once; default 8")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the nodes end with it
    nodes, seconds, clients = (12, 30.0, 4) if options.quick else (50, 120.0, 8)
    asyncio.run(run(options.nodes or nodes, options.seconds or seconds, options.clients or clients))


if __name__ == "__main__":
    main()
