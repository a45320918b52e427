"""Decoding while another process keeps one core busy: Shoal against llama.cpp, alone and beside it, turn by turn.

Claim: a thread that the system takes off its core delays Shoal's step by the piece of work it holds and no more, so
what is left of the machine is used. Both take as many threads as there are cores, and the same GGUF file.

    python bench/contention.py [--quick] [--model FILE] [--threads N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from common.environment import environment
from common.peer import Peer
from common.report import finish, machine, summary, table
from engine import CONTEXT, LLAMA, default_model, prompts

BATCHES = (1, 8)


@contextmanager
def busy_core(is_wanted: bool) -> Iterator[None]:
    """A process that computes without end, if wanted."""
    if not is_wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def measure(
    peer: Peer, rng: np.random.Generator, steps: int, is_busy: bool, times: dict[tuple[str, str], list[float]]
) -> None:
    with busy_core(is_busy):
        for batch in BATCHES:
            seconds = peer.ask("decode", prompts=prompts(rng, batch, CONTEXT), steps=steps)["seconds"]
            times[peer.name, f"decode_{batch}{'_busy' if is_busy else ''}"].append(batch * steps / seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two turns instead of seven")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    model = (options.model or default_model()).resolve()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    rng = np.random.default_rng(20261123)
    with ExitStack() as stack:
        peers = [
            stack.enter_context(Peer("llama", environment("llama", LLAMA), "llama_worker.py")),
            stack.enter_context(Peer("shoal", Path(sys.executable), "shoal_worker.py")),
        ]
        for peer in peers:
            peer.ask("load", path=str(model), threads=options.threads)
            peer.ask("first_token", tokens=list(range(1000, 1016)))
        for _ in range(2 if options.quick else 7):
            for peer in peers:
                for is_busy in (False, True):
                    measure(peer, rng, 24, is_busy, times)
    middle = {key: summary(values)["median"] for key, values in times.items()}
    figures = [f"decode_{batch}{kind}" for batch in BATCHES for kind in ("", "_busy")]
    cells = [(figure, *(f"{middle[name, figure]:.0f}" for name in ("shoal", "llama"))) for figure in figures]
    table(("tokens/s", "shoal", "llama.cpp"), cells)
    rows = [{"engine": name, "figure": figure, **summary(values)} for (name, figure), values in times.items()]
    ratios = {f"llama_{figure}": middle["shoal", figure] / middle["llama", figure] for figure in figures}
    finish("contention", rows, ratios, machine())


if __name__ == "__main__":
    main()
