"""What a test of the lab needs: two public nodes with relays, two nodes behind NATs, and one way to link them."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field
from typing import Any

from natlab import PUBLIC, Kind, NatLab, Worker


@dataclass(frozen=True, slots=True)
class Cell:
    """Two NATs, and what theory says of a link between them."""

    a: Kind
    b: Kind
    paths: tuple[str, ...]
    double: bool = False
    ipv6: bool = False

    @property
    def name(self) -> str:
        extra = ("double-" if self.double else "") + ("ipv6-" if self.ipv6 else "")
        return f"{extra}{self.a}-{self.b}"


@dataclass
class Stage:
    lab: NatLab
    public: dict[str, Worker] = field(init=False)
    a: Worker = field(init=False)
    b: Worker = field(init=False)
    relays: list[str] = field(init=False)
    observers: list[Any] = field(init=False)
    _seeds: Any = field(default_factory=lambda: itertools.count(1000))

    def __post_init__(self) -> None:
        self.public = {name: self.lab.worker(name) for name in PUBLIC}
        self.a, self.b = self.lab.worker("a"), self.lab.worker("b")
        started = [(w, w.begin("relay", host=PUBLIC[name], port=3340)) for name, w in self.public.items()]
        self.relays = [worker.result(ticket) for worker, ticket in started]
        self.observers = [
            worker.ask("start", seed=seed, relays=self.relays)["address"]
            for seed, worker in enumerate(self.public.values(), 100)
        ]

    def nats(self, cell: Cell) -> None:
        self.lab.set_nat("a", cell.a, double=cell.double, ipv6=cell.ipv6)
        self.lab.set_nat("b", cell.b, ipv6=cell.ipv6)

    def nodes(self, relays: bool = True, observers: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both nodes anew, their addresses observed; what each found out."""
        self.both("start", relays=self.relays if relays else [], seeded=True)
        for worker in (self.a, self.b):
            for address in self.observers[:observers]:
                worker.ask("learn", address=address)
        found = self.both("refresh", observers=[address[0] for address in self.observers[:observers]])
        return found[0], found[1]

    def both(self, command: str, seeded: bool = False, **given: Any) -> list[Any]:
        tickets = []
        for worker in (self.a, self.b):
            own = {"seed": next(self._seeds)} if seeded else {}
            tickets.append((worker, worker.begin(command, **own, **given)))
        return [worker.result(ticket) for worker, ticket in tickets]

    def link(self, cell: Cell, wait_s: float = 5.0) -> tuple[str, dict[str, Any]]:
        """A link from a to b as a node makes it: observe, exchange addresses, dial; then b's id and what was seen."""
        self.nats(cell)
        found = self.nodes()
        other = found[1]["address"]
        self.a.ask("learn", address=other)
        connected = self.a.ask("connect", peer=other[0])
        first = self.a.ask("echo", peer=other[0])
        settled = self.a.ask("settle", peer=other[0], within_s=wait_s)
        seen = {
            "cell": cell.name, "nats": [item["kind"] for item in found], "first_path": connected["path"],
            "connect_s": round(connected["seconds"], 3), "first_echo_s": round(first, 3), "path": settled["path"],
            "settled_s": round(connected["seconds"] + first + settled["seconds"], 3),
        }  # fmt: skip
        note(seen)
        return other[0], seen


def note(row: dict[str, Any]) -> None:
    """One JSON line into the file NATLAB_LOG names, for whoever collects figures."""
    if path := os.environ.get("NATLAB_LOG"):
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")
