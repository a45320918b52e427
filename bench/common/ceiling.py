"""What this CPU's float32 multiply-adds can do: a loop of them in C on every core, built like the kernels."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from shoal.kernels import build

CHAINS = 12
"""Independent sums: latency of 4 or 5 cycles times two units."""

SOURCE = """
#include "simd.h"
float peak(long n) {
  vf acc[CHAINS], x = vf_set1(0.999f), y = vf_set1(0.001f);
  float total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < CHAINS; i++) acc[i] = vf_set1((float)i);
  for (; n > 0; n--)
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * x + y;
#pragma GCC unroll 16
  for (int i = 0; i < CHAINS; i++) total += vf_sum(acc[i]);
  return total;
}
"""


def float_gflop_s(threads: int, lanes: int, rounds: int = 10_000_000) -> float:
    """Best of three runs, all threads at once; a multiply-add is two operations."""
    library = _build()
    best = 0.0
    for _ in range(3):
        workers = [threading.Thread(target=library.peak, args=(ctypes.c_long(rounds),)) for _ in range(threads)]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, 2.0 * lanes * CHAINS * rounds * threads / (time.perf_counter() - began) / 1e9)
    return best


def _build() -> ctypes.CDLL:
    compiler = build.find_compiler()
    assert compiler is not None, "the kernels need one, too"
    flags = (*build.BASE_FLAGS, *build.ISAS[build.available_isas()[0]][1], f"-DCHAINS={CHAINS}", f"-I{build.SOURCES}")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "peak.c", Path(folder) / "peak.so"
        source.write_text(SOURCE)
        subprocess.run([*compiler, *flags, str(source), "-o", str(target), "-lm"], check=True)
        return ctypes.CDLL(str(target))
