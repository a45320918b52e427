"""Shoal's paged attention alone, by context and type of the KV cache, against torch's on the same cores.

Claim: chunked prefill (512 queries a step, as the engine cuts it) runs near what this CPU's float32 multiply-adds can
do, decode reads the cache about as fast as memory gives it, and both are ahead of torch's scaled_dot_product_attention
in float32 on contiguous keys and values. Shapes are the default model's. Small caches stay in the CPU's own, so their
GB/s can lie above memory's; inside the network the weights push them out.

    python bench/attention.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from collections import defaultdict

import numpy as np

from common.ceiling import float_gflop_s
from common.environment import environment
from common.peer import Peer
from common.report import finish, machine, summary, table
from engine import TRANSFORMERS
from shoal.kernels import native
from shoal.kernels.executor import KV_TYPES, CacheShape, Executor, KvType
from shoal.kernels.program import Code, Node, Recorder, lower
from shoal.models.batch import Batch

HEADS, KV_HEADS, DIM = 9, 3, 64
BLOCK, STEP, TABLE = 16, 512, 64
PREFILLS = (512, 2048, 8192)
DECODES = tuple((batch, context) for batch in (1, 8, 32) for context in (128, 512, 2048))
CACHED_BYTES = 200e6
"""Of keys and values of all layers as halves, about: what decides how many of the model's 30 layers are run."""

Times = dict[tuple[str, str], list[float]]


class Attention:
    """A program of nothing but cache writes and attention, over rows that repeat every `TABLE`."""

    def __init__(self, kv_type: KvType, seqs: int, context: int, layers: int, threads: int) -> None:
        library, rng, recorder = native.load(), np.random.default_rng(0), Recorder()
        self.kept: list[object] = []
        widths = (HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM)
        q, k, v = (recorder.value(width) for width in widths)
        for value, width in zip((q, k, v), widths, strict=True):
            rows = rng.standard_normal((TABLE, width)).astype(np.float32)
            packed = native.pack(library, "F32", rows.view(np.uint8), TABLE, width)
            self.kept.append(packed)
            recorder.add(Node(Code.EMBED, (), (value,), width, weights=(ctypes.addressof(packed[0]),), f=1.0))
        out, result = recorder.value(HEADS * DIM), recorder.value(HEADS * DIM)
        for layer in range(layers):
            recorder.add(Node(Code.WRITE_KV, (k, v), (), KV_HEADS * DIM, layer=layer))
            recorder.add(Node(Code.ATTENTION, (q,), (out,), HEADS * DIM, heads=HEADS, layer=layer, f=DIM**-0.5))
        recorder.add(Node(Code.GATHER, (out,), (result,), HEADS * DIM, on_outputs=True))
        self.blocks = -(-context // BLOCK)
        shape = CacheShape(layers, seqs * self.blocks, BLOCK, KV_HEADS, DIM, kv_type)
        self.seqs, self.context, self.layers = seqs, context, layers
        self.bytes = 2 * shape.layer_bytes * layers
        self.executor = Executor(library, lower(recorder, result), shape, threads=threads, hidden_size=1)

    def step(self, start: int, end: int) -> Batch:
        """Positions start .. end - 1 of every sequence."""
        tables = np.arange(self.seqs * self.blocks, dtype=np.int32).reshape(self.seqs, self.blocks)
        positions = np.tile(np.arange(start, end, dtype=np.int32), self.seqs)
        owner = np.repeat(np.arange(self.seqs), end - start)
        return Batch(
            tokens=positions % TABLE,
            positions=positions,
            slots=(tables[owner, positions // BLOCK] * BLOCK + positions % BLOCK).astype(np.int32),
            query_start=np.arange(0, len(positions) + 1, end - start, dtype=np.int32),
            context_lens=np.full(self.seqs, end, np.int32),
            block_tables=tables,
            adapters=np.full(self.seqs, -1, np.int32),
            output_rows=np.arange(len(positions), dtype=np.int32),
        )

    def prefill(self) -> float:
        """Seconds for the whole context in steps."""
        steps = [self.step(at, min(at + STEP, self.context)) for at in range(0, self.context, STEP)]
        began = time.perf_counter()
        for step in steps:
            self.executor.run(step)
        return time.perf_counter() - began

    def decode(self) -> float:
        """Seconds of the fastest of three steps; the cache was filled by nobody, which costs the same."""
        step, times = self.step(self.context - 1, self.context), []
        for _ in range(3):
            began = time.perf_counter()
            self.executor.run(step)
            times.append(time.perf_counter() - began)
        return min(times)

    def touch(self) -> None:
        """Every page of the cache gets memory of its own."""
        self.executor._keys[:] = 1
        self.executor._values[:] = 1


def decode_layers(batch: int, context: int) -> int:
    return max(2, min(30, int(CACHED_BYTES / (batch * context * 4 * KV_HEADS * DIM))))


def operations(context: int, layers: int) -> float:
    """Multiplications and additions of causal attention, a query's keys counted exactly."""
    return 4.0 * HEADS * DIM * layers * context * (context + 1) / 2


def measure_prefill(peer: Peer, context: int, turns: int, threads: int, times: Times) -> None:
    layers = max(2, 12 * 1024 // context)
    ours = {kv_type: Attention(kv_type, 1, context, layers, threads) for kv_type in KV_TYPES}
    for turn in range(turns + 1):  # the first is to warm up
        seconds = {kv_type: attention.prefill() for kv_type, attention in ours.items()}
        found = {**seconds, "torch": peer.ask("prefill", context=context, layers=layers)["seconds"]}
        for name, value in found.items():
            if turn:
                times[name, f"prefill_{context}"].append(operations(context, layers) / value / 1e9)
    for attention in ours.values():
        attention.executor.close()


def measure_decode(peer: Peer, batch: int, context: int, turns: int, threads: int, times: Times) -> None:
    layers = decode_layers(batch, context)
    for kv_type in KV_TYPES:
        attention = Attention(kv_type, batch, context, layers, threads)
        attention.touch()
        for _ in range(turns):
            seconds = attention.decode()
            times[kv_type, f"decode_{batch}x{context}"].append(seconds / layers * 1e6)
            times[kv_type, f"read_{batch}x{context}"].append(attention.bytes / seconds / 1e9)
        attention.executor.close()
    for _ in range(turns):
        seconds = peer.ask("decode", batch=batch, context=context, layers=layers)["seconds"]
        times["torch", f"decode_{batch}x{context}"].append(seconds / layers * 1e6)


def ratios_of(middle: dict[tuple[str, str], float]) -> dict[str, float]:
    """Against torch; throughput of prefill, time of decode."""
    out = {}
    for (name, figure), value in middle.items():
        if name == "torch" or figure.startswith("read"):
            continue
        peer = middle["torch", figure]
        out[f"{figure}_{name}"] = value / peer if figure.startswith("prefill") else peer / value
    return out


def print_tables(middle: dict[tuple[str, str], float], flops: float, bandwidth: float) -> None:
    columns = (*KV_TYPES, "torch")
    figures = list(dict.fromkeys(figure for _, figure in middle if figure.startswith("prefill")))
    rows = [(f, *(f"{middle[name, f]:.0f} ({middle[name, f] / flops:.0%})" for name in columns)) for f in figures]
    table((f"GFLOP/s (of {flops:.0f} measured)", *columns), rows)
    print()
    rows = []
    for figure in dict.fromkeys(figure for _, figure in middle if figure.startswith("decode")):
        read = figure.replace("decode", "read")
        cells = [f"{middle[name, figure]:.1f} ({middle[name, read]:.0f} GB/s)" for name in KV_TYPES]
        rows.append((figure, *cells, f"{middle['torch', figure]:.1f}"))
    table((f"microseconds per layer (reads: {bandwidth:.0f} GB/s)", *columns), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three turns, contexts up to 2048")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    about, times = machine(), defaultdict[tuple[str, str], list[float]](list)
    turns = 3 if options.quick else 7
    flops = float_gflop_s(options.threads, native.load().lanes)
    with Peer("sdpa", environment("transformers", TRANSFORMERS), "sdpa_worker.py") as peer:
        system = peer.ask("load", heads=HEADS, kv_heads=KV_HEADS, head_dim=DIM, threads=options.threads)["system"]
        print(f"peer: {system}", file=sys.stderr)
        for context in PREFILLS[: 2 if options.quick else 3]:
            measure_prefill(peer, context, turns, options.threads, times)
        for batch, context in DECODES:
            measure_decode(peer, batch, context, turns, options.threads, times)
    middle = {key: summary(values)["median"] for key, values in times.items()}
    print_tables(middle, flops, about["memory_read_gb_s"])
    rows = [{"kv": name, "figure": figure, **summary(values)} for (name, figure), values in times.items()]
    ratios = ratios_of(middle)
    print()
    table(("Shoal against torch", "times"), [(name, f"{value:.2f}") for name, value in ratios.items()])
    finish("attention", rows, ratios, {**about, "float32_gflop_s": round(flops, 1)})


if __name__ == "__main__":
    main()
