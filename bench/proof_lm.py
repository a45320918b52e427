"""A forward pass of the default model, proven end to end and checked by another process: what each phase costs.

Claims: a prompt of 64 tokens and the logits of the next one are proven in at most 120 s on two idle cores and 12 GB,
checked in at most 5 s (the process, its start and the reading of the graph included), at 100 proven bits or more; and
the integers that are proven are faithful: the same likeliest token as the float model's in at least 97 of 100 prompts.

    python bench/proof_lm.py [--quick] [--model FILE] [--lengths 8 64] [--committed]

    compile     checkpoint to integer graph (scales from text that nothing else uses), saved with its weights
    prove       reads the graph, runs it, proves; the steps within the proof are listed below it
    verify      reads the graph and the proof, checks; in `forge` four forgeries, each of which has to be rejected
    fidelity    integers against floats on text the scales were not drawn from; beside it the engine's own arithmetic

--quick: 8 tokens, and a few prompts for fidelity. --committed: also a proof for who has only the weights' commitment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from common.phases import Clock, Row
from common.report import finish, machine, table
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.forced import forced_logits
from shoal.models.native_runner import NativeRunner
from shoal.models.store import Store
from shoal.models.tokenizer import load_tokenizer
from shoal.node.config_sources import load as load_config
from shoal.node.fetch import ensure_model
from shoal.proof.graph import store
from shoal.proof.transformer.reference import Reference
from shoal.trust.forward_model import Fidelity, Floats, calibrate, fidelity, floats_of, forward_graph

ROOT = Path(__file__).parent.parent
CALIBRATION, HELD_BACK = ROOT / "docs" / "architecture.md", ROOT / "tests" / "data" / "teacher_forced.txt"
WORKER = Path(__file__).parent / "workers" / "proof_lm_worker.py"
LIMIT_S, LIMIT_GB, LIMIT_VERIFY_S = 120, 12, 5


def compile_model(floats: Floats, length: int, prompts: list[list[int]], folder: Path) -> list[Row]:
    clock = Clock()
    with clock.phase("calibrate"):
        scales = calibrate(floats, prompts)
    with clock.phase("graph"):
        graph = forward_graph(floats, length, scales)
    with clock.phase("save"):
        store.save(graph, folder)
    return clock.rows


def child(*arguments: str) -> Row:
    """A step in a process of its own: what it printed, and its wall time."""
    began = time.perf_counter()
    command = [sys.executable, str(WORKER), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1800)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return {**found, "wall_s": time.perf_counter() - began}


# ---- what is measured ------------------------------------------------------------------------------------------


def texts(checkpoint: Checkpoint, path: Path, length: int, count: int) -> tuple[list[list[int]], list[int]]:
    """`count` prompts spread over a text, and the token that follows each."""
    tokens = load_tokenizer(checkpoint.tokenizer).encode(path.read_text())
    starts = np.linspace(0, len(tokens) - length - 1, count).astype(int).tolist()
    return [tokens[s : s + length] for s in starts], [tokens[s + length] for s in starts]


def measure(checkpoint: Checkpoint, floats: Floats, length: int, is_committed: bool, calibrated: int) -> list[Row]:
    prompts, _ = texts(checkpoint, CALIBRATION, 64, calibrated)
    (prompt,), _ = texts(checkpoint, HELD_BACK, length, 1)
    flags = ["--committed"] if is_committed else []
    with tempfile.TemporaryDirectory() as name:
        about = {"tokens": length, "weights": "committed" if is_committed else "public"}
        rows = [about | {"step": "compile"} | row for row in compile_model(floats, length, prompts, Path(name))]
        for step in ("prove", "verify", "forge"):
            asked = ["--prompt", *map(str, prompt)] if step == "prove" else []
            found = child(step, name, *flags, *asked)
            rows += [about | {"step": step} | row for row in found.pop("rows")]
            rows.append(about | {"step": step, "phase": "the process", "within": "", **found})
    return rows


def faithful(checkpoint: Checkpoint, floats: Floats, calibrated: int, count: int) -> list[Row]:
    """The integers, and the engine's native arithmetic, against the floats on the same prompts."""
    length = 64
    graph = forward_graph(floats, length, calibrate(floats, texts(checkpoint, CALIBRATION, length, calibrated)[0]))
    prompts, followed = texts(checkpoint, HELD_BACK, length, count)
    own, native = fidelity(floats, graph, prompts, followed), engine_fidelity(checkpoint, floats, prompts, followed)
    return [{"arithmetic": "proven integers", **asdict(own)}, {"arithmetic": "engine (native)", **asdict(native)}]


def engine_fidelity(checkpoint: Checkpoint, floats: Floats, prompts: list[list[int]], followed: list[int]) -> Fidelity:
    reference, runner = Reference(floats.config, floats.weights), NativeRunner(checkpoint, num_blocks=64)
    found = []
    for prompt, token in zip(prompts, followed, strict=True):
        (logits,) = forced_logits(runner, [prompt])
        wanted, own = (x - np.logaddexp.reduce(x) for x in (reference.logits(prompt), logits[-1].astype(np.float64)))
        same, divergence = wanted.argmax() == own.argmax(), (np.exp(wanted) * (wanted - own)).sum()
        found.append((same, divergence, -wanted[token], -own[token]))
    runner.close()
    same, mean, float_loss, own_loss = np.mean(found, axis=0).tolist()
    return Fidelity(len(prompts), 0, same, mean, max(float(row[1]) for row in found), float_loss, own_loss)


# ---- report ----------------------------------------------------------------------------------------------------


def report(rows: list[Row], faith: list[Row]) -> dict[str, float]:
    cells = [(f"{r['tokens']:>3} {r['weights']:<9} {r['step']:<7} {'  ' if r['within'] else ''}{r['phase']}",
              _number(r, "wall_s"), _number(r, "cpu_s"), _number(r, "peak_gb")) for r in rows]  # fmt: skip
    table(("tokens, weights, step, phase", "wall s", "CPU s", "peak GB"), cells)
    print()
    proofs = [r for r in rows if "proof_bytes" in r]
    checks, forged = [r for r in rows if "bits" in r], [r for r in rows if "rejected" in r]
    table(("tokens", "weights", "lookups", "committed", "proof MB", "proven bits", "forgeries rejected"),
          [(str(p["tokens"]), p["weights"], f"{p['lookups']:,}", f"{p['committed']:,}", f"{p['proof_bytes'] / 1e6:.2f}",
            f"{c['bits']:.1f}", f"{f['rejected']} of {f['forged']}")
           for p, c, f in zip(proofs, checks, forged, strict=True)])  # fmt: skip
    print()
    table(("arithmetic", "prompts", "refused", "same token", "mean KL", "worst KL", "loss", "float's"),
          [(f["arithmetic"], str(f["prompts"]), str(f["refused"]), f"{f['same_token']:.3f}",
            f"{f['mean_divergence']:.2e}", f"{f['worst_divergence']:.2e}", f"{f['integer_loss']:.4f}",
            f"{f['float_loss']:.4f}") for f in faith])  # fmt: skip
    prove, verify = proofs[-1], checks[-1]
    return {"prove_limit": LIMIT_S / prove["wall_s"], "memory_limit": LIMIT_GB / prove["peak_gb"],
            "verify_limit": LIMIT_VERIFY_S / verify["wall_s"], "same_token": faith[0]["same_token"],
            "bits_over_100": min(c["bits"] for c in checks) / 100,
            "forgeries_rejected": min(f["rejected"] / f["forged"] for f in forged)}  # fmt: skip


def _number(row: Row, key: str) -> str:
    return f"{row[key]:.2f}" if row.get(key) else ""


def default_model() -> Path:
    config = load_config({}, os.environ).config
    ensure_model(config)
    return Store(config.home).resolve(config.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 tokens, under a minute")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--lengths", type=int, nargs="+", help="of prompts; default 8 16 32 64, the last one is judged")
    parser.add_argument("--committed", action="store_true", help="prove with committed weights too")
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.model or default_model())
    floats = floats_of(checkpoint)
    calibrated, count = (16, 8) if options.quick else (24, 100)
    rows = list[Row]()
    for length in options.lengths or ((8,) if options.quick else (8, 16, 32, 64)):
        rows += measure(checkpoint, floats, length, False, calibrated)
        if options.committed:
            rows += measure(checkpoint, floats, length, True, calibrated)
    faith = faithful(checkpoint, floats, calibrated, count)
    ratios = report(rows, faith)
    finish("proof_lm", [*rows, *faith], ratios, machine())


if __name__ == "__main__":
    main()
