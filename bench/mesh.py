"""Calls between two processes on one machine: Shoal over its carriers against lattica, hivemind and gRPC, in turns.

Claim: one small call takes no longer than lattica's; 16 callers get at least 3 times its requests a second and 256
callers 10 times, without errors; large messages move at least 1.2 times as fast as over its TCP and over its QUIC; and
calls work through a relay, where lattica refuses them.

    python bench/mesh.py [--quick] [--only NAME ...]

Each peer lives in an environment of its own (bench/.envs) and in two processes, one that listens and one that asks;
every turn measures all of them one after the other. Everything is encrypted. The relayed pair runs where UDP is
blocked, which needs root; the relay runs in the listening process. hivemind needs torch: 2 GB the first time.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from common.environment import environment
from common.no_udp import python_without_udp
from common.peer import Peer
from common.report import finish, machine, summary, table

LATTICA = ("lattica==1.0.21",)
HIVEMIND = ("hivemind==1.1.12", "torch==2.13.0", "setuptools")
GRPC = ("grpcio==1.85.1", "cryptography==50.0.2")

NAMES = {
    "shoal_tcp": ("mesh_shoal.py", (), "tcp"),
    "lattica_tcp": ("mesh_lattica.py", LATTICA, "tcp"),
    "shoal_quic": ("mesh_shoal.py", (), "quic"),
    "lattica_quic": ("mesh_lattica.py", LATTICA, "quic"),
    "shoal_relayed": ("mesh_shoal.py", (), "relay"),
    "grpc_tls": ("mesh_grpc.py", GRPC, "tcp"),
    "hivemind": ("mesh_hivemind.py", HIVEMIND, "tcp"),
}
"""name -> (worker, requirements, carrier)"""

TENSORS_KB = (16, 64, 256, 1024, 4096)
"""Activations that peers of a pipeline exchange: one token of a small model to a few hundred of a large one."""

Figures = dict[tuple[str, str], list[float]]


class Pair:
    """A listening and an asking process of one mesh, connected."""

    def __init__(self, stack: ExitStack, name: str, python: Path) -> None:
        script, _, carrier = NAMES[name]
        self.name = name
        self.server = stack.enter_context(Peer(f"{name}_server", python, script))
        self.client = stack.enter_context(Peer(f"{name}_client", python, script))
        address = self.server.ask("listen", carrier=carrier)
        self.path = self.client.ask("connect", **address)["path"]
        print(f"{name}: {self.path}", file=sys.stderr)

    def cpu_s(self) -> float:
        return float(self.server.ask("cpu")["seconds"] + self.client.ask("cpu")["seconds"])

    def measure(self, quick: bool, figures: Figures) -> None:
        """One turn: every figure once."""
        times = self.client.ask("latency", count=300 if quick else 1000)["seconds"]
        self.note(figures, p50_us=np.percentile(times, 50) * 1e6, p99_us=np.percentile(times, 99) * 1e6)
        times = self.client.ask("latency_beside_bulk", count=30 if quick else 200, size=2**26)["seconds"]
        self.note(figures, p50_us_beside_bulk=np.percentile(times, 50) * 1e6)
        for callers in (1, 16, 256):
            answer = self.client.ask("rate", callers=callers, seconds=0.5 if quick else 2.0)
            self.note(figures, **{f"rps_{callers}": answer["done"] / answer["seconds"],
                                  f"errors_{callers}": answer["errors"]})  # fmt: skip
        for size in (2**20, 2**26):
            self.upload(size, f"mb_s_{size >> 20}mb", 0.5 if quick else 2.0, figures)

    def measure_tensors(self, quick: bool, figures: Figures) -> None:
        for kilobytes in TENSORS_KB:
            self.upload(kilobytes * 1024, f"mb_s_tensor_{kilobytes}kb", 0.2 if quick else 1.0, figures)

    def upload(self, size: int, figure: str, seconds: float, figures: Figures) -> None:
        before = self.cpu_s()
        answer = self.client.ask("upload", size=size, seconds=seconds)
        self.note(figures, **{figure: answer["bytes"] / answer["seconds"] / 1e6})
        if figure == "mb_s_1mb":
            sent = answer["bytes"] + size  # and one to warm up
            self.note(figures, cpu_s_gb=(self.cpu_s() - before) / sent * 1e9)

    def note(self, figures: Figures, **values: Any) -> None:
        for figure, value in values.items():
            figures[self.name, figure].append(float(value))


def start(stack: ExitStack, names: list[str]) -> list[Pair]:
    """Every mesh that can run here, connected."""
    pairs = []
    for name in names:
        script, requirements, carrier = NAMES[name]
        python: Path | None = Path(sys.executable)
        if requirements:
            python = environment(script.removesuffix(".py").removeprefix("mesh_"), requirements)
        elif carrier == "relay":
            python = stack.enter_context(python_without_udp())
        if python is not None:
            pairs.append(Pair(stack, name, python))
    return pairs


def ratios_of(figures: Figures) -> dict[str, float]:
    """Like against like; where both carriers count, the worse of the two."""
    middle = {key: summary(values)["median"] for key, values in figures.items()}
    out: dict[str, float] = {}
    both = [kind for kind in ("tcp", "quic") if {f"shoal_{kind}", f"lattica_{kind}"} <= {name for name, _ in middle}]
    if both:
        out["lattica_p50"] = min(
            middle[f"lattica_{kind}", "p50_us"] / middle[f"shoal_{kind}", "p50_us"] for kind in both
        )
        for callers in (16, 256):
            out[f"lattica_rps_{callers}"] = min(
                middle[f"shoal_{kind}", f"rps_{callers}"] / max(middle[f"lattica_{kind}", f"rps_{callers}"], 1.0)
                for kind in both
            )
    for kind in both:
        out[f"lattica_bulk_{kind}"] = min(
            middle[f"shoal_{kind}", f"mb_s_{size}mb"] / middle[f"lattica_{kind}", f"mb_s_{size}mb"] for size in (1, 64)
        )
    for peer in ("grpc_tls", "hivemind"):
        if (peer, "p50_us") in middle and ("shoal_tcp", "p50_us") in middle:
            out[f"{peer}_p50"] = middle[peer, "p50_us"] / middle["shoal_tcp", "p50_us"]
            out[f"{peer}_rps_256"] = middle["shoal_tcp", "rps_256"] / middle[peer, "rps_256"]
            out[f"{peer}_bulk"] = middle["shoal_tcp", "mb_s_1mb"] / middle[peer, "mb_s_1mb"]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three short turns instead of seven; under three minutes")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="some of the peers")
    options = parser.parse_args()
    figures: Figures = defaultdict(list)
    about = machine()
    with ExitStack() as stack:
        pairs = start(stack, options.only)
        for turn in range(3 if options.quick else 7):
            for pair in pairs:
                pair.measure(options.quick, figures)
                if turn == 0 or not options.quick:
                    pair.measure_tensors(options.quick, figures)
    rows: list[dict[str, Any]] = [
        {"mesh": name, "figure": figure, **summary(values)} for (name, figure), values in figures.items()
    ]
    cells = [
        (f"{row['figure']} {row['mesh']}", *(f"{row[key]:.4g}" for key in ("median", "min", "max"))) for row in rows
    ]
    table(("figure (µs, requests/s, errors, MB/s, CPU s/GB)", "median", "min", "max"), sorted(cells))
    ratios = ratios_of(figures)
    print()
    table(("Shoal against", "times"), [(name, f"{value:.2f}") for name, value in ratios.items()])
    finish("mesh", rows, ratios, about | {"paths": {pair.name: pair.path for pair in pairs}})


if __name__ == "__main__":
    main()
