"""What a receipt costs: CPU time of an answer with and without one, in alternating turns; of verifying; bytes.

The ratio is CPU time without over with: 1 is free. The physical ceiling of decoding is in bench/engine.py.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.report import finish, machine, table
from shoal.core.chunk import Chunk
from shoal.core.clock import SystemClock
from shoal.core.receipt import Signed
from shoal.core.request import Request, Sampling
from shoal.core.seams import Generate
from shoal.crypto.keys import PrivateKey
from shoal.node.compose import Node, compose
from shoal.node.config import NodeConfig
from shoal.node.config_sources import load as load_config
from shoal.node.fetch import ensure_model
from shoal.trust.inspect import inspect
from shoal.trust.receipt import write_opening, write_receipt
from shoal.trust.seal import Sealer
from shoal.trust.shelf import Shelf

PROMPT = "Once upon a time, in a small village by the sea,"


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def answer(generate: Generate, model: str, num_tokens: int, receipt: bool) -> tuple[float, Chunk]:
    """CPU seconds of one answer, everything in it, and its last chunk."""
    sampling = Sampling(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
    began, last = cpu_s(), Chunk()
    async for chunk in generate(Request("bench", model, PROMPT, sampling, receipt=receipt)):
        last = chunk
    return cpu_s() - began, last


async def turns(node: Node, sealer: Sealer, count: int, num_tokens: int) -> tuple[dict[bool, list[float]], Signed]:
    generate, model = sealer.sealed(node.service.generate), node.engine.config.model
    found: dict[bool, list[float]] = {True: [], False: []}
    _, last = await answer(generate, model, num_tokens, True)  # warms the cache; hashes the weights
    for turn in range(count):
        for receipt in (turn % 2 == 0, turn % 2 == 1):
            used, _ = await answer(generate, model, num_tokens, receipt)
            found[receipt].append(used)
    assert last.receipt is not None, "the answer was asked for with a receipt"
    return found, Signed(last.receipt, last.opening)


def median_s(work: Callable[[], object], count: int = 21) -> float:
    times = []
    for _ in range(count):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


async def main(config: NodeConfig, quick: bool) -> None:
    count, num_tokens = (8, 96) if quick else (20, 256)
    with tempfile.TemporaryDirectory() as folder:
        async with compose(config) as node:
            sealer = Sealer(PrivateKey.generate(), Shelf(Path(folder)), SystemClock(), node.identities.of)
            found, signed = await turns(node, sealer, count, num_tokens)
            sealer.shelf.close()
    plain, with_receipt = (statistics.median(found[receipt]) / num_tokens for receipt in (False, True))
    assert signed.opening is not None, "answers for clients have openings"
    rows: list[dict[str, Any]] = [
        {"what": "answer, no receipt", "value": plain * 1e3, "unit": "CPU ms/token"},
        {"what": "answer with receipt", "value": with_receipt * 1e3, "unit": "CPU ms/token"},
        {"what": "verify", "value": median_s(lambda: inspect(signed)) * 1e3, "unit": "CPU ms"},
        {"what": "receipt", "value": len(write_receipt(signed.receipt)), "unit": "bytes"},
        {"what": f"opening, {num_tokens} tokens", "value": len(write_opening(signed.opening)), "unit": "bytes"},
        {
            "what": "of it fingerprints",
            "value": sum(map(len, signed.opening.outputs[0].fingerprints)),
            "unit": "bytes",
        },
    ]
    table(("what", "value", "unit"), [(row["what"], f"{row['value']:.4g}", row["unit"]) for row in rows])
    finish("receipts", rows, {"receipt_overhead": plain / with_receipt}, machine())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", help="instead of the configured one")
    options = parser.parse_args()
    node_config = replace(load_config({"model": options.model}, os.environ).config, draft="off", threads=1)
    ensure_model(node_config)
    asyncio.run(main(node_config, options.quick))
