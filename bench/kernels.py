"""The products of the default model's phases against what this CPU's arithmetic and memory allow.

Claim: prefill (512 rows) runs at half or more of the int8 ceiling, and one row at half or more of the memory ceiling.

A ceiling of arithmetic is derived, and printed: the speed of the dot instruction between registers, measured, times its
share of the instructions that need the same execution units (scaling a block of 32 columns takes one multiplication and
two fused additions per vector). Unpacking, conversions and loads are left out: they have units of their own.
Weights are Q4_1, more of them than caches hold, each phase in all threads as a step runs it.

    python bench/kernels.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from common.environment import cache
from common.report import finish, machine, summary, table
from shoal.kernels import build, native
from shoal.kernels.executor import CacheShape, Executor
from shoal.kernels.program import Code, Node, Recorder, lower
from shoal.models.batch import Batch

PHASES = {"q k v": ((576, 192, 192), 576), "output": ((576,), 576), "gate up": ((1536, 1536), 576),
          "down": ((576,), 1536), "vocabulary": ((49152,), 576)}  # fmt: skip
"""Rows of each matrix of a phase, and their columns, in SmolLM2-135M."""

LAYERS = 30
ROWS = (1, 8, 32, 512)
COLD = 80_000_000
"""Bytes of weights that a timing at few rows goes through: more than the last-level cache holds."""

OTHERS = {"avx512vnni": (8, 3), "avxvnni": (8, 3), "avx2": (8, 4), "neon": (16, 6)}
"""Per 32 columns of a vector of outputs: dot instructions, and others on their units (AVX2 adds a vpmaddwd)."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """gops: multiplications and additions of all threads, 0 where it is not derived; bytes: read per second."""

    gops: float
    bytes: float
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """Copies of one phase's matrices as a program; `kept` is the memory it points into. bytes, macs: of all copies."""

    runner: Executor
    kept: list[object]
    copies: int
    bytes: int
    macs: int


def together(threads: int, amount: float, work: Callable[[int], object]) -> float:
    """How much all threads do per second when each does `amount` at once; the best of forty."""
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(40):
            began = perf_counter()
            list(pool.map(work, range(threads)))
            best = max(best, threads * amount / (perf_counter() - began))
    return best


def ceilings(isa: str, threads: int) -> Ceilings:
    target = cache("ceiling") / f"ceiling-{isa}.so"
    compiler = build.find_compiler()
    assert compiler is not None
    source = Path(__file__).parent / "workers" / "ceiling.c"
    subprocess.run([*compiler, *build.BASE_FLAGS, *build.ISAS[isa][1], source, "-o", target], check=True)
    library = ctypes.CDLL(str(target))
    library.ceiling_dots.argtypes = (ctypes.c_int64,)
    library.ceiling_reads.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    memory = [np.ones(128 << 20, np.uint8) for _ in range(threads)]
    reads = together(threads, 128 << 20, lambda i: library.ceiling_reads(memory[i].ctypes.data, memory[i].nbytes))
    text = f"{isa}, {threads} threads: memory {reads / 1e9:.1f} GB/s"
    if isa not in OTHERS:
        return Ceilings(0, reads, f"{text}; no dot instruction")
    rate = together(threads, 12 * 4_000_000, lambda _: library.ceiling_dots(4_000_000))
    products, (dots, others) = library.ceiling_products(), OTHERS[isa]
    plain = 2e-9 * rate * products
    gops = plain * dots / (dots + others)
    text += (
        f"; {rate / 1e9:.2f} G dots/s of {products} products = {plain:.0f} GOP/s, x {dots} / ({dots} + {others}) "
        f"for the scales = {gops:.0f} GOP/s"
    )
    return Ceilings(gops, reads, text)


def phase(library: native.Library, shape: tuple[tuple[int, ...], int], rows: int, threads: int) -> Case:
    """As many copies as keep weights cold at up to 32 rows; four at more, where arithmetic is all."""
    heights, columns = shape
    rng = np.random.default_rng(1)
    kept: list[object] = []
    arena = native.Arena()
    table = rng.standard_normal((rows, columns)).astype(np.float32)
    recorder = Recorder()
    source = recorder.value(columns)
    embedding, memory = native.pack(library, "F32", table.view(np.uint8), rows, columns)
    kept += [embedding, memory]
    recorder.add(Node(Code.EMBED, (), (source,), columns, weights=(ctypes.addressof(embedding),), f=1.0))
    packed = [native.pack(library, "Q4_1", weights(rng, height, columns), height, columns) for height in heights]
    size = sum(memory.nbytes for _, memory in packed)
    copies = 4 if rows > 32 else -(-COLD // size)
    for _ in range(copies):
        matrices = []
        for matrix, memory in packed:
            again = arena.take(memory.nbytes)
            again[:] = memory
            matrices.append(native.Matrix(again.ctypes.data, matrix.rows, matrix.columns, matrix.pack, matrix.scale))
            kept += [again, matrices[-1]]
        outs = tuple(recorder.value(height) for height in heights)
        none = (0,) * len(heights)
        recorder.add(
            Node(Code.PRODUCTS, (source,), outs, columns, count=len(heights), is_quantized=True, biases=none,
                 adds=(False,) * len(heights), targets=none, weights=tuple(map(ctypes.addressof, matrices)))
        )  # fmt: skip
    shape_of_cache = CacheShape(1, 1, 16, 1, 16, "f32")
    runner = Executor(library, lower(recorder, outs[0]), shape_of_cache, threads=threads, hidden_size=1)
    return Case(runner, kept, copies, copies * size, copies * rows * columns * sum(heights))


def weights(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Random Q4_1 codes with a scale and a minimum of about a hundredth: uint8 (rows, bytes per row)."""
    blocks = rng.integers(0, 256, (rows, columns // 32, 20), dtype=np.uint8)
    blocks[..., :4] = np.array([0.01, -0.08], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def batch(rows: int) -> Batch:
    each = np.arange(rows, dtype=np.int32)
    one, none = np.array([rows], np.int32), np.full(1, -1, np.int32)
    return Batch(each, each, each, np.array([0, rows], np.int32), one, np.zeros((1, 1), np.int32), none, each)


def seconds(case: Case, rows: int, turns: int) -> list[float]:
    step, times = batch(rows), []
    for _ in range(turns + 1):
        began = perf_counter()
        case.runner.run(step)
        times.append(perf_counter() - began)
    return times[1:]


def measure(isa: str, threads: int, turns: int) -> list[dict[str, Any]]:
    """A row for each phase and number of rows, and the ceilings in words. `once`: one copy's seconds."""
    library, ceiling = native.load(isa), ceilings(isa, threads)
    print(ceiling.text)
    out = []
    for name, m in itertools.product(PHASES, ROWS):
        if m == 512 and (name == "vocabulary" or not ceiling.gops):
            continue  # prefill wants the logits of one row; plain C would take minutes
        case = phase(library, PHASES[name], m, threads)
        with closing(case.runner):
            found = summary(seconds(case, m, turns if ceiling.gops else 2))
        taken, count = found["median"], LAYERS if name != "vocabulary" else 1
        gops, read = 2e-9 * case.macs / taken, case.bytes / taken
        shares = {"of_int8": gops / ceiling.gops if ceiling.gops else 0.0, "of_memory": read / ceiling.bytes}
        row = {"isa": isa, "phase": name, "rows": m, "count": count, "once": taken / case.copies, "gops": gops}
        out.append({**row, **shares, **found})
    return out


def of_model(rows: list[dict[str, Any]], share: str, m: int) -> float:
    """A share over all phases of the model at `m` rows: weighted by the time each takes."""
    chosen = [(row["count"] * row["once"], row[share]) for row in rows if row["rows"] == m]
    return float(sum(time * value for time, value in chosen) / sum(time for time, _ in chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="five turns instead of fifteen, the best instructions only"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    everything, cells, ratios = [], [], {}
    for isa in build.available_isas()[: 1 if options.quick else None]:
        rows = measure(isa, options.threads, 5 if options.quick else 15)
        everything += rows
        for row in rows:
            share = f"{row['of_int8']:.0%}" if row["of_int8"] else "-"
            cells.append(
                (f"{isa} {row['phase']}", str(row["rows"]), f"{row['gops']:.0f}", share, f"{row['of_memory']:.0%}")
            )
        ratios[f"{isa}_rows_1_of_memory"] = of_model(rows, "of_memory", 1)
        ratios |= {f"{isa}_rows_{m}_of_int8": of_model(rows, "of_int8", m) for m in ROWS[1:] if isa in OTHERS}
    table(("phase", "rows", "GOP/s", "of int8", "of memory"), cells)
    print()
    table(("the model's phases together", "share"), [(name, f"{value:.0%}") for name, value in ratios.items()])
    finish("kernels", everything, ratios, machine())


if __name__ == "__main__":
    main()
