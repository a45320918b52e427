"""Proofs of networks: Shoal against JSTprove 2.1.0 and ezkl 23.0.5, the same models and inputs, in one run.

Claim: LeNet (28x28, trained, 281,640 products), Gemm 512 and 1024 and an MLP of 512x2 are proven at least ten times
cheaper than by JSTprove, in its own precision (18 fractional bits) and in int8; LeNet is verified five times cheaper
than by its bare binary though the start of Python is counted (ten times command against command), its proof is no
longer, and its verifier needs no witness file; ezkl is further behind.

    python bench/proof.py [--quick] [--models NAME ...]

CPU-seconds are what is compared (processor time of a process and its children): they do not change with what else the
machine does, and all three use both cores. Outputs are rounded to the scale of the rest, as JSTprove rounds them; all
give the weights to the verifier, as JSTprove does. What is timed:

    Shoal     `prove`, `verify`: the call on a loaded model, first in its process (`shoal prove bench`);
              `verify process`: `python -m shoal.proof` from start to exit; `prove process`: `shoal prove prove`.
    JSTprove  `prove`, `verify`: its binary expander-exec from start to exit, without the CLI's seconds of imports;
              `prove process`, `verify process`: its CLI, once. `compile`, `witness`: its CLI, imports included;
              rust_s is what it prints for its own part.
    ezkl      each step in a Python process. Scale 2^7, weights fixed. `srs` is made here, so its secret is known: good
              for timing, worthless as a proof; the ceremony's file needs a download.

Needs: Debian's libopenmpi3 for JSTprove (apt-get install libopenmpi3), 12 GB of memory and 6 GB of disk for ezkl. Peers
live in bench/.envs; compiled circuits, keys and ezkl's SRS are kept there too (files/proof). --quick measures Shoal and
JSTprove's prove and verify anew, takes what was kept for the rest (rows say `kept`), and ends ezkl's prover after 60 s:
its figure is then a lower bound (rows say `at_least`).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.environment import cache, environment
from common.proof_models import MODELS, float_output, inputs_of, model_of
from common.report import finish, machine, summary, table
from common.steps import Step, run

JSTPROVE = ("numpy==2.2.6", "onnx==1.17.0", "onnxruntime==1.21.0", "onnxruntime_extensions==0.14.0", "psutil==7.0.0",
            "scikit_learn==1.6.1", "toml==0.10.2", "torch==2.13.0", "transformers==4.52.4", "tokenizers==0.21.4",
            "huggingface_hub==0.36.2", "requests==2.32.3")  # fmt: skip
"""What jstprove 2.1.0 imports; it asks for torch 2.6.0 with CUDA, of which its ONNX way uses nothing."""
EZKL = ("ezkl==23.0.5",)

MODES = {"int8": ("--mode", "int8"), "wide18": ("--mode", "wide", "--fraction", "18")}
EZKL_MODELS = ("lenet",)
LIMIT_S, QUICK_EZKL_S = 1800.0, 60.0
BYTECODE = {"PYTHONPYCACHEPREFIX": str(cache("proof") / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
"""An installed program has its modules compiled; a checkout under a test runner may not."""
ALPHA = 2.0**18

Row = dict[str, Any]


class Bench:
    """Rows as they are measured, several figures of one step in a list."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.rows: dict[tuple[str, str, str], list[Row]] = defaultdict(list)

    def note(self, system: str, model: str, step: str, **figures: Any) -> None:
        self.rows[system, model, step].append(figures)

    def step(self, key: tuple[str, str, str], done: Step, size: int = 0, **more: Any) -> None:
        """Figures of a process. Ended at the limit: at least so much."""
        late = {} if done.is_done else {"at_least": True}
        self.note(*key, wall_s=done.wall_s, cpu_s=done.cpu_s, peak_mb=done.peak_mb, bytes=size, **late, **more)

    def kept(self, key: tuple[str, str, str], folder: Path, made: list[str], measure: Callable[[], Row]) -> None:
        """A step whose files stay: with --quick it is not repeated if they are there."""
        record = folder / f"{key[2]}.step.json"
        if self.quick and record.exists() and all((folder / name).exists() for name in made):
            self.note(*key, **json.loads(record.read_text()), kept=True)
            return
        print(f"{' '.join(key)} ...", file=sys.stderr)
        figures = measure()
        record.write_text(json.dumps(figures))
        self.note(*key, **figures)

    def middle(self, system: str, model: str, step: str, figure: str = "cpu_s") -> float:
        """The median, nan where it was not measured."""
        found = [row[figure] for row in self.rows.get((system, model, step), [])]
        return float(np.median(found)) if found else float("nan")


def figures_of(done: Step, size: int = 0, **more: Any) -> Row:
    return {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "peak_mb": done.peak_mb, "bytes": size, **more}


def size_of(*files: Path) -> int:
    return sum(file.stat().st_size for file in files)


# ---- Shoal


def prepare(name: str) -> Path:
    """A folder with the model, one input for each system, and the calibration inputs."""
    folder = cache(f"proof/{name}")
    samples = inputs_of(name)
    flat = samples[0].reshape(-1).tolist()
    (folder / "model.onnx").write_bytes(model_of(name))
    (folder / "input.json").write_text(json.dumps({"input": flat}))
    (folder / "ezkl.json").write_text(json.dumps({"input_data": [flat]}))
    np.savez(folder / "calibration.npz", input=samples)
    return folder


def shoal(bench: Bench, name: str, folder: Path, mode: str) -> None:
    """One turn."""
    system, home = f"shoal {mode}", {**os.environ, **BYTECODE}
    cli = [sys.executable, "-m", "shoal", "prove"]
    options = [*MODES[mode], "--round-outputs", "--calibration", folder / "calibration.npz"]
    done = run([*cli, "bench", folder / "model.onnx", *options, "--json"], LIMIT_S, folder, home)
    for row in json.loads(done.output[done.output.index("[") :]):
        bench.note(system, name, row["step"], wall_s=row["wall_s"], cpu_s=row["cpu_s"], peak_mb=row["peak_mb"],
                   bytes=row["size"])  # fmt: skip
    art, proof, output = folder / f"shoal_{mode}", folder / f"{mode}.proof", folder / f"{mode}.output.json"
    if (system, name, "prove process") not in bench.rows:
        run([*cli, "compile", folder / "model.onnx", "--out", art, *options], LIMIT_S, folder, home)
    given = [art, folder / "input.json"]
    done = run([*cli, "prove", *given, "--proof", proof, "--output", output], LIMIT_S, folder, home)
    error = np.abs(np.ravel(json.loads(output.read_text())["output"]) - float_output(name)).max()
    bench.step((system, name, "prove process"), done, size_of(proof), max_error=float(error))
    alone = [sys.executable, "-m", "shoal.proof", *given, output, proof]
    bench.step((system, name, "verify process"), run(alone, LIMIT_S, folder, home))


# ---- JSTprove


class JstProve:
    """Its CLI for what stays, its binary for what is timed."""

    def __init__(self) -> None:
        try:
            ctypes.CDLL("libmpi.so.40")
        except OSError:
            raise SystemExit("JSTprove's binary needs libmpi.so.40: apt-get install libopenmpi3") from None
        python = environment("jstprove", JSTPROVE, ("jstprove==2.1.0",))
        self.cli = python.parent / "jst"
        self.exec = next(python.parent.parent.glob("lib/*/site-packages/python/core/binaries/expander-exec"))
        self.env = {**os.environ, "OMPI_MCA_ess_singleton_isolated": "1", "CUDA_VISIBLE_DEVICES": ""}

    def prepare(self, bench: Bench, name: str, folder: Path) -> None:
        """Circuit and witness."""

        def compile_() -> Row:
            done = self._jst(folder, "compile", "-m", "model.onnx", "-c", "circuit.txt")
            return figures_of(done, size_of(*folder.glob("circuit*")), rust_s=_rust_s(done.output))

        def witness() -> Row:
            files = ("-i", "input.json", "-o", "output.json", "-w", "witness.bin")
            done = self._jst(folder, "witness", "-c", "circuit.txt", *files)
            return figures_of(done, size_of(folder / "witness.bin"), rust_s=_rust_s(done.output))

        bench.kept(("jstprove", name, "compile"), folder, ["circuit.txt"], compile_)
        bench.kept(("jstprove", name, "witness"), folder, ["witness.bin"], witness)

    def turn(self, bench: Bench, name: str, folder: Path) -> None:
        common = ["-c", "circuit.txt", "-w", "witness.bin"]
        done = run([self.exec, "-p", "Hyrax", "prove", *common, "-o", "proof.bin"], LIMIT_S, folder, self.env)
        found = np.array(json.loads((folder / "output.json").read_text())["output"]) / ALPHA
        error = float(np.abs(np.ravel(found) - float_output(name)).max())
        bench.step(("jstprove", name, "prove"), done, size_of(folder / "proof.bin"), max_error=error)
        done = run([self.exec, "-p", "Hyrax", "verify", *common, "-i", "proof.bin"], LIMIT_S, folder, self.env)
        bench.step(("jstprove", name, "verify"), done, size_of(folder / "proof.bin", folder / "witness.bin"))
        is_asked = name == "lenet" or not bench.quick
        if is_asked and ("jstprove", name, "verify process") not in bench.rows:
            done = self._jst(folder, "prove", *common, "-p", "again.bin")
            bench.step(("jstprove", name, "prove process"), done, size_of(folder / "again.bin"))
            files = ("-i", "input.json", "-o", "output.json", "-p", "proof.bin")
            bench.step(("jstprove", name, "verify process"), self._jst(folder, "verify", *common, *files))

    def _jst(self, folder: Path, *arguments: str) -> Step:
        return run([self.cli, "--no-banner", *arguments], LIMIT_S, folder, self.env)


def _rust_s(output: str) -> float:
    return float(output.split("Rust time taken:")[-1].split()[0])


# ---- ezkl


def ezkl(bench: Bench, name: str, folder: Path) -> None:
    """Every step once. With --quick only if what is slow was made before."""
    python, script = environment("ezkl", EZKL), Path(__file__).parent / "workers" / "ezkl_step.py"
    made = {"compile": ["model.ezkl", "settings.json"], "srs": ["kzg.srs"], "setup": ["pk.key", "vk.key"],
            "witness": ["witness.json"]}  # fmt: skip
    (folder / "input.json").write_bytes((folder / "ezkl.json").read_bytes())
    if bench.quick and not all((folder / file).exists() for files in made.values() for file in files):
        print(f"ezkl {name}: no keys were kept; one run without --quick makes them", file=sys.stderr)
        return

    def one(step: str, limit_s: float = LIMIT_S) -> Step:
        return run([python, script, step, folder], limit_s, folder)

    for step, files in made.items():
        bench.kept(("ezkl", name, step), folder, files,
                   lambda step=step, files=files: figures_of(  # type: ignore[misc]
                       one(step), size_of(*(folder / file for file in files))))  # fmt: skip
    proof = folder / "proof.json"
    (proof if not bench.quick else folder / "unfinished").unlink(missing_ok=True)
    done = one("prove", QUICK_EZKL_S if bench.quick else LIMIT_S)
    bench.step(("ezkl", name, "prove"), done, size_of(proof) if done.is_done else 0)
    if proof.exists():
        bench.step(("ezkl", name, "verify"), one("verify"), size_of(proof), **({"kept": True} if bench.quick else {}))


# ---- all


def ratios_of(bench: Bench) -> dict[str, float]:
    """Peer over Shoal in CPU-seconds or bytes, the worse of Shoal's two precisions."""

    def against(peer: str, model: str, step: str, ours: str, figure: str = "cpu_s") -> float:
        theirs = bench.middle(peer, model, step, figure)
        return theirs / max(bench.middle(f"shoal {mode}", model, ours, figure) for mode in MODES)

    found = {
        "jstprove_lenet_prove": against("jstprove", "lenet", "prove", "prove"),
        "jstprove_lenet_prove_command": against("jstprove", "lenet", "prove process", "prove process"),
        "jstprove_lenet_verify": against("jstprove", "lenet", "verify", "verify process"),
        "jstprove_lenet_verify_call": against("jstprove", "lenet", "verify", "verify"),
        "jstprove_lenet_verify_command": against("jstprove", "lenet", "verify process", "verify process"),
        "jstprove_lenet_bytes": against("jstprove", "lenet", "prove", "prove", "bytes"),
        "jstprove_lenet_bytes_with_witness": bench.middle("jstprove", "lenet", "verify", "bytes")
        / max(bench.middle(f"shoal {mode}", "lenet", "prove", "bytes") for mode in MODES),
        "jstprove_lenet_compile": against("jstprove", "lenet", "compile", "compile"),
        "jstprove_lenet_memory": against("jstprove", "lenet", "prove", "prove", "peak_mb"),
        "jstprove_gemm512_prove": against("jstprove", "gemm512", "prove", "prove"),
        "jstprove_gemm1024_prove": against("jstprove", "gemm1024", "prove", "prove"),
        "jstprove_mlp_prove": against("jstprove", "mlp", "prove", "prove"),
        "ezkl_lenet_prove": against("ezkl", "lenet", "prove", "prove"),
    }
    return {name: value for name, value in found.items() if value == value}


def rows_of(bench: Bench) -> list[Row]:
    rows = []
    for (system, model, step), found in bench.rows.items():
        last = found[-1]
        row: Row = {"system": system, "model": model, "step": step, "runs": len(found)}
        row |= {name: summary([one[name] for one in found])["median"] for name in ("wall_s", "cpu_s", "peak_mb")}
        rows.append(row | {name: value for name, value in last.items() if name not in row})
    return rows


def show(rows: list[Row]) -> None:
    cells = []
    for row in rows:
        marks = " ".join(name for name in ("kept", "at_least") if row.get(name))
        error = f"{row['max_error']:.1e}" if "max_error" in row else ""
        cells.append((f"{row['model']} {row['system']} {row['step']}", f"{row['wall_s']:.3f}", f"{row['cpu_s']:.3f}",
                      f"{row['peak_mb']:.0f}", f"{row['bytes']:,}" if row["bytes"] else "", error, marks))  # fmt: skip
    table(("step", "wall s", "CPU s", "peak MB", "bytes", "max error", ""), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three turns instead of seven, what was kept; < 4 minutes")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="some of them")
    options = parser.parse_args()
    bench, about = Bench(options.quick), machine()
    peer = JstProve()
    for name in options.models:
        folder = prepare(name)
        theirs = cache(f"proof/jstprove_{name}")
        for file in ("model.onnx", "input.json"):
            (theirs / file).write_bytes((folder / file).read_bytes())
        peer.prepare(bench, name, theirs)
        for _ in range(3 if options.quick else 7):
            for mode in MODES:
                shoal(bench, name, folder, mode)
            peer.turn(bench, name, theirs)
        if name in EZKL_MODELS:
            own = cache(f"proof/ezkl_{name}")
            for file in ("model.onnx", "ezkl.json"):
                (own / file).write_bytes((folder / file).read_bytes())
            ezkl(bench, name, own)
    rows, ratios = rows_of(bench), ratios_of(bench)
    show(rows)
    print()
    table(("Shoal against", "times"), [(name, f"{value:,.1f}") for name, value in ratios.items()])
    finish("proof", rows, ratios, about)


if __name__ == "__main__":
    main()
