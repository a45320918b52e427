"""One machine's engine against llama.cpp, OpenVINO GenAI and transformers: same GGUF file, same threads, turn by turn.

Claim: on two cores Shoal's whole engine (scheduler, paging, sampler and text inside the timing) prefills and decodes
faster than llama.cpp's bare `llama_decode`, on the file as shipped and on llama.cpp's best format for this CPU (Q4_0
from its own quantiser), is nowhere behind OpenVINO GenAI, and a shared prefix cuts the time to first token by its
length.

    python bench/engine.py [--quick] [--model FILE] [--threads N]

Peers live in environments of their own (bench/.envs); llama-cpp-python is built from source the first time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from common.environment import cache, environment
from common.peer import Peer
from common.report import finish, machine, summary, table

VOCAB = 49152
CONTEXT = 128
LLAMA = ("llama-cpp-python==0.3.36",)
OPENVINO = ("openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", "openvino==2026.4.1", "numpy")
TRANSFORMERS = ("torch==2.13.0", "transformers==5.23.0", "gguf", "accelerate")

Times = dict[tuple[str, str], list[float]]


def default_model() -> Path:
    """The default model's file in the user's store, pulled if it is missing."""
    from shoal.models.store import Store
    from shoal.node.config_sources import load
    from shoal.node.fetch import ensure_model

    config = load({}, os.environ).config
    ensure_model(config)
    return Store(config.home).resolve(config.model)


def prompts(rng: np.random.Generator, count: int, length: int) -> list[list[int]]:
    return rng.integers(1000, VOCAB, (count, length)).tolist()


def start(stack: ExitStack, name: str, python: Path, script: str, model: Path, threads: int, times: Times) -> Peer:
    """A loaded peer; its time from spawning to the first token of a short prompt is the first figure."""
    peer = stack.enter_context(Peer(name, python, script))
    system = peer.ask("load", path=str(model), threads=threads)["system"]
    peer.ask("first_token", tokens=list(range(1000, 1016)))
    times[name, "startup_s"].append(time.perf_counter() - peer.started_at)
    print(f"{name}: {system}", file=sys.stderr)
    return peer


def measure(peer: Peer, rng: np.random.Generator, quick: bool, times: Times) -> None:
    """One turn: every figure once."""
    for length in (512, 2048):
        seconds = peer.ask("prefill", tokens=prompts(rng, 1, length)[0])["seconds"]
        times[peer.name, f"prefill_{length}"].append(length / seconds)
    for batch in (1, 8) if peer.name == "transformers" else (1, 8, 32):
        steps = 32 if quick or peer.name == "transformers" else 64
        seconds = peer.ask("decode", prompts=prompts(rng, batch, CONTEXT), steps=steps)["seconds"]
        times[peer.name, f"decode_{batch}"].append(batch * steps / seconds)


def measure_prefix(peer: Peer, rng: np.random.Generator, times: Times) -> None:
    """Time to first token of 1,500 + 20 tokens: never seen, and with the first 1,500 seen before."""
    shared, *tails = prompts(rng, 1, 1500) + prompts(rng, 2, 20)
    for name, tail in zip(("ttft_cold_s", "ttft_shared_prefix_s"), tails, strict=True):
        times[peer.name, name].append(peer.ask("prefill", tokens=shared + tail)["seconds"])


def ratios_of(times: Times) -> dict[str, float]:
    middle = {key: summary(values)["median"] for key, values in times.items()}
    figures = [f"prefill_{n}" for n in (512, 2048)] + [f"decode_{n}" for n in (1, 8, 32)]
    out = {
        f"{peer}_{figure}": middle["shoal", figure] / middle[peer, figure]
        for peer in ("llama_file", "llama_best", "openvino", "transformers")
        for figure in figures
        if (peer, figure) in middle
    }
    out["prefix_ttft"] = middle["shoal", "ttft_cold_s"] / middle["shoal", "ttft_shared_prefix_s"]
    for peer in ("llama_file", "openvino", "transformers"):
        out[f"{peer}_startup"] = middle[peer, "startup_s"] / middle["shoal", "startup_s"]
        out[f"{peer}_memory"] = middle[peer, "memory_mb"] / middle["shoal", "memory_mb"]
    return out


def print_ceilings(about: dict[str, object], model: Path, times: Times) -> None:
    size = model.stat().st_size
    ceiling = float(str(about["memory_read_gb_s"])) * 1e9 / size
    got = summary(times["shoal", "decode_1"])["median"]
    print(
        f"\nmemory ceiling of decode at batch 1: {ceiling:.0f} tokens/s "
        f"({about['memory_read_gb_s']} GB/s over {size / 1e6:.1f} MB); Shoal reaches {got / ceiling:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three turns instead of seven")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    model = (options.model or default_model()).resolve()
    llama, torch = environment("llama", LLAMA), environment("transformers", TRANSFORMERS)
    openvino = environment("openvino", OPENVINO)
    times: Times = defaultdict(list)
    rng = np.random.default_rng(20261123)
    about = machine()
    with ExitStack() as stack:
        best = cache("llama") / f"{model.stem}.requantised.Q4_0.gguf"
        file = start(stack, "llama_file", llama, "llama_worker.py", model, options.threads, times)
        if not best.exists():
            file.ask("requantize", source=str(model), target=str(best))
        peers = [
            file,
            start(stack, "llama_best", llama, "llama_worker.py", best, options.threads, times),
            start(stack, "openvino", openvino, "openvino_worker.py", model, options.threads, times),
            start(stack, "transformers", torch, "transformers_worker.py", model, options.threads, times),
            start(stack, "shoal", Path(sys.executable), "shoal_worker.py", model, options.threads, times),
        ]
        for turn in range(3 if options.quick else 7):
            for peer in peers:
                if peer.name != "transformers" or turn < 3:
                    measure(peer, rng, options.quick, times)
            measure_prefix(peers[-1], rng, times)
        for peer in peers:
            times[peer.name, "memory_mb"].append(peer.ask("memory")["bytes"] / 1e6)
    rows = [{"engine": name, "figure": figure, **summary(values)} for (name, figure), values in times.items()]
    cells = [
        (f"{row['figure']} {row['engine']}", *(f"{row[key]:.4g}" for key in ("median", "min", "max"))) for row in rows
    ]
    table(("figure (tokens/s, seconds, MB)", "median", "min", "max"), sorted(cells))
    ratios = ratios_of(times)
    print()
    table(("Shoal against", "times"), [(name, f"{value:.2f}") for name, value in ratios.items()])
    print_ceilings(about, model, times)
    finish("engine", rows, ratios, about)


if __name__ == "__main__":
    main()
