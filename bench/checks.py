"""What each tier of checking costs and catches, on the default model.

    fingerprint   honest arithmetics against cheats: area under the ROC, detection at 1 % and 0.1 % false alarms, with
                  95 % intervals, on answers held back from drawing the limits; CPU-seconds against the answer's own
    distribution  one verifier's CPU-seconds, bytes sent
    freivalds     CPU-seconds against recomputing, on the matrix shapes of a 64-token forward of the default model

`--limits FILE` also writes the limits that ship with Shoal (src/shoal/trust/data/limits.json).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.answerers import Arithmetic, machine
from common.asked import requests
from common.gathering import Claim, cheating_claims, gather, honest_claims, load, save
from common.report import finish, table
from common.report import machine as this_machine
from common.roc import row, samples, score, tails_of
from shoal.kernels.build import available_isas
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.store import Store
from shoal.node.config_sources import load as load_config
from shoal.node.fetch import ensure_model
from shoal.trust.calibrate import Limits, Pair, arithmetic, draw_limits
from shoal.trust.calibrate_file import format_limits
from shoal.trust.calibrate_run import evidence_of, question_of
from shoal.trust.distribution_claims import claims_of
from shoal.trust.freivalds import Product, Secret, bits, draw, error_bound, matches

Found = dict[str, dict[str, list[Any]]]
PRIME = 2**31 - 1


def arithmetics(quick: bool) -> dict[str, Arithmetic]:
    """By the text that receipts name them by; the first is this machine's own."""
    isas = available_isas()
    own = Arithmetic(isa=isas[0])
    listed = [own, replace(own, kv="int8"), replace(own, bits=16)]
    if "avx2" in isas[1:]:
        listed.append(Arithmetic(isa="avx2"))
    if not quick:
        listed += [Arithmetic(torch="float32"), Arithmetic(torch="bfloat16")]
    return {arithmetic(one.identity(None)): one for one in listed}


async def collect(checkpoint: Checkpoint, quick: bool, path: Path) -> None:
    """Answers, run again; kept at `path`."""
    known = arithmetics(quick)
    own = next(iter(known.values()))
    honest, cheats, length = (40, 9, 64) if quick else (160, 60, 64)
    claims: dict[str, list[Claim]] = {}
    for name, one in known.items():
        claims[f"honest {name}"] = await honest_claims(checkpoint, one, requests(honest, 1, length))
    found = await cheating_claims(checkpoint, own, requests(cheats, 2, length))
    claims |= {f"cheat {name}": listed for name, listed in found.items()}
    checkers = [name for name, one in known.items() if not one.torch][: 2 if quick else None]
    gathered = {name: await gather(checkpoint, known[name], claims) for name in checkers}
    save(path, gathered)


def roc(found: Found, quantization: str) -> list[dict[str, Any]]:
    """For each checker: its own arithmetic's cheats, against limits of the pair, on answers held back."""
    rows = []
    answered = next(iter(found))
    for checked, by_claim in found.items():
        pair = Pair(answered, checked, quantization)
        tails, held_back = tails_of(pair, by_claim[f"honest {answered}"])
        rows.append({"checked": checked, **row("(honest, held back)", held_back, held_back)})
        for name, answers in by_claim.items():
            if name.startswith("cheat "):
                scores = [score(sample, tails) for sample in samples(answers)]
                rows.append({"checked": checked, **row(name.removeprefix("cheat "), scores, held_back)})
    return rows


def false_alarms(found: Found, quantization: str) -> list[dict[str, Any]]:
    """Every honest pair, on answers held back."""
    rows = []
    for checked, by_claim in found.items():
        for name, answers in by_claim.items():
            if name.startswith("honest "):
                _, held_back = tails_of(Pair(name[7:], checked, quantization), answers)
                rows.append({"checked": checked, "answered": name[7:], **row("(honest)", held_back, held_back)})
    return rows


def all_limits(found: Found, quantization: str, origin: str) -> list[Limits]:
    """Of every pair, once: the reverse of a pair needs none, and what agrees to the bit neither."""
    drawn: dict[frozenset[str], Limits] = {}
    for checked, by_claim in found.items():
        for name, answers in by_claim.items():
            pair = Pair(name.removeprefix("honest "), checked, quantization)
            both = frozenset((pair.answered, pair.checked))
            if name.startswith("honest ") and len(both) == 2 and both not in drawn:
                drawn[both] = draw_limits(pair, answers, f"{origin}, {len(answers)} answers")
    return list(drawn.values())


# ---- costs -----------------------------------------------------------------------------------------------------


async def costs(checkpoint: Checkpoint, quick: bool) -> list[dict[str, Any]]:
    """CPU-seconds of an answer of 128 tokens alone, of its fingerprint check, and of one verifier's claims."""
    own = next(iter(arithmetics(True).values()))
    made, again, claimed = [], [], []
    async with machine(checkpoint, own) as here:
        for request in requests(3 if quick else 7, 5, 128):
            began = time.process_time()
            [evidence] = await evidence_of(here.engine.generate, [request])
            made.append(time.process_time() - began)
            asked = question_of(request, evidence)
            began = time.process_time()
            await here.rerunner.rerun(asked)
            again.append(time.process_time() - began)
            began = time.process_time()
            await claims_of(here.rerunner, asked, range(0, 128, 4), 8)
            claimed.append(time.process_time() - began)
    answer = float(np.median(made))
    return [
        {"tier": "none", "cpu_s": answer, "of_answer": 1.0},
        {"tier": "fingerprint", "cpu_s": float(np.median(again)), "of_answer": float(np.median(again)) / answer},
        {
            "tier": "distribution, each verifier",
            "cpu_s": float(np.median(claimed)),
            "of_answer": float(np.median(claimed)) / answer,
        },
    ]


def freivalds_costs(checkpoint: Checkpoint, rows: int = 64) -> list[dict[str, Any]]:
    """All matrix products of a forward over `rows` tokens: recomputed in float64 (BLAS, exact), checked, and checked
    with vectors prepared before."""
    random = np.random.default_rng(0)
    shapes = [t.shape for t in checkpoint.weights.values() if len(t.shape) == 2 and "token_embd" not in t.name]
    shapes.append(checkpoint.weights["token_embd.weight"].shape)
    names = ("recomputed", "freivalds, fresh coins", "freivalds, prepared")
    times_s = dict.fromkeys(names, 0.0)
    for columns, inner in shapes:
        x = random.integers(-128, 128, (rows, inner)).astype(np.int16)
        w = random.integers(-128, 128, (inner, columns), np.int8)
        y = _multiplied(x, w)
        product, prepared = Product(x, w, y), draw(w, PRIME, 2)
        turns: list[tuple[float, float, float]] = []
        for _ in range(3):
            began = time.process_time()
            _multiplied(x, w)
            again = time.process_time() - began
            turns.append((again, _checked(product, None), _checked(product, prepared)))
        for name, turn in zip(names, zip(*turns, strict=True), strict=True):
            times_s[name] += min(turn)
    bound = bits(error_bound(2, len(shapes)))
    return [
        {"tier": name, "cpu_s": value, "of_recomputing": value / times_s["recomputed"], "bits": round(bound, 1)}
        for name, value in times_s.items()
    ]


def _multiplied(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.asarray((x.astype(np.float64) @ w.astype(np.float64)).astype(np.int64))


def _checked(product: Product, secret: Secret | None) -> float:
    began = time.process_time()
    assert matches(product, secret or draw(product.w, PRIME, 2))
    return time.process_time() - began


def default_model() -> Path:
    config = load_config({}, os.environ).config
    ensure_model(config)
    return Store(config.home).resolve(config.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer answers and pairs, under two minutes")
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--data", type=Path, default=Path("/tmp/shoal-checks.npz"), help="where differences are kept")
    parser.add_argument("--reuse", action="store_true", help="of the last run, instead of gathering anew")
    parser.add_argument("--limits", type=Path, help="write limits here")
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.model or default_model())
    if not options.reuse:
        asyncio.run(collect(checkpoint, options.quick, options.data))
    found = load(options.data)
    seen, alarms = roc(found, checkpoint.quantization), false_alarms(found, checkpoint.quantization)
    paid = [*asyncio.run(costs(checkpoint, options.quick)), *freivalds_costs(checkpoint)]
    if options.limits:
        origin = f"bench/checks.py, {checkpoint.name}, {this_machine()['cpu']}"
        options.limits.write_text(format_limits(all_limits(found, checkpoint.quantization, origin)))
        print(f"limits written to {options.limits}", file=sys.stderr)
    report(seen, alarms, paid)


def report(seen: list[dict[str, Any]], alarms: list[dict[str, Any]], paid: list[dict[str, Any]]) -> None:
    shares = [[r["checked"], r["cheat"], f"{r['auc']:.4f}", _share(r, 0.01), _share(r, 0.001)] for r in seen]
    table(["checked by", "cheat", "AUC", "seen at 1 %", "at 0.1 %"], shares)
    print()
    honest = [[r["checked"], r["answered"], _share(r, 0.01), _share(r, 0.001)] for r in alarms]
    table(["checked by", "answered by", "false alarms at 1 %", "at 0.1 %"], honest)
    print()
    table(
        ["tier", "CPU-s", "of the answer", "of recomputing"],
        [[r["tier"], f"{r['cpu_s']:.3f}", _ratio(r, "of_answer"), _ratio(r, "of_recomputing")] for r in paid],
    )
    by_tier = {r["tier"]: r for r in paid}
    ratios = {
        "fingerprint_vs_answer": 1 / by_tier["fingerprint"]["of_answer"],
        "freivalds_vs_recomputing": 1 / by_tier["freivalds, fresh coins"]["of_recomputing"],
        "prepared_freivalds_vs_recomputing": 1 / by_tier["freivalds, prepared"]["of_recomputing"],
    }
    finish("checks", [*seen, *alarms, *paid], ratios, this_machine())


def _share(found: dict[str, Any], rate: float) -> str:
    low, high = found[f"interval_at_{rate:g}"]
    return f"{100 * found[f'seen_at_{rate:g}']:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def _ratio(found: dict[str, Any], key: str) -> str:
    return f"{found[key]:.3f}" if key in found else ""


if __name__ == "__main__":
    main()
