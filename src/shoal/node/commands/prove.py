"""`shoal prove check | compile | witness | prove | verify | bench`. Exit codes: 0 valid, 1 invalid, 2 unusable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.core.errors import BadConfig, ShoalError
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import say, write, write_json, write_table

if TYPE_CHECKING:
    from shoal.proof.artifacts import Artifact
    from shoal.proof.artifacts_compile import CompileOptions
    from shoal.proof.artifacts_manifest import Manifest

app = typer.Typer(help="Prove what a network answered, and check such proofs.", no_args_is_help=True)

INVALID = 1

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What `compile` wrote.")]
Input = Annotated[Path, typer.Argument(metavar="INPUT", help="Inputs by name, .json or .npz.")]
Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="The claimed outputs by name, .json or .npz.")]
Bits = Annotated[str, typer.Option("--mode", help="int8, or wide: fractions of --fraction bits.")]
Fraction = Annotated[int, typer.Option("--fraction", min=8, max=20, help="With --mode wide.")]
Calibration = Annotated[
    Path | None, typer.Option("--calibration", help="Typical inputs, .npz: name -> (samples, *shape).")
]
Low = Annotated[float, typer.Option("--low", help="Without --calibration: least random input.")]
High = Annotated[float, typer.Option("--high", help="Without --calibration: greatest random input.")]
Rounds = Annotated[bool, typer.Option("--round-outputs", help="Outputs in the scale of the rest, not as exact sums.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command("check")
@configured()
def check(loaded: Loaded, model: Model, as_json: AsJson = False) -> None:
    """Say whether a model can be proven: every operator that cannot be, by name and place."""
    from shoal.proof.artifacts_survey import survey

    with unusable("model"):
        found = survey(model)
    if as_json:
        write_json({"provable": not found.refused, "operators": found.operators, "refused": found.refused})
    else:
        write_table(("operator", "nodes"), [(name, str(count)) for name, count in found.operators.items()])
        for line in found.refused:
            write(f"✗ {line}\n")
        write("it can be proven\n" if not found.refused else "it cannot be proven as it is\n")
    if found.refused:
        raise typer.Exit(INVALID)


@app.command("compile")
@configured()
def compile_(
    loaded: Loaded,
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; the same model gives the same bytes.")],
    mode: Bits = "int8",
    fraction: Fraction = 16,
    calibration: Calibration = None,
    low: Low = -1.0,
    high: High = 1.0,
    round_outputs: Rounds = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Verifiers know the weights by a digest only; longer proofs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a model into a circuit, once: a folder with manifest, integer graph, weights and a readable listing."""
    from shoal.node.progress import step_bar
    from shoal.proof.artifacts_compile import compile_model

    with unusable("compile"), step_bar() as bar:
        options = _options(mode, fraction, calibration, low, high, round_outputs, commit)
        artifact = compile_model(model, out, options, bar)
    if calibration is None:
        say(f"calibrated on random inputs from {low:g} to {high:g}: give --calibration for those the model will see")
    _describe(out, artifact.manifest, as_json)


@app.command("witness")
@configured()
def witness(
    loaded: Loaded,
    folder: Folder,
    inputs: Input,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the outputs, .json or .npz.")] = None,
) -> None:
    """Run the integer graph: the outputs that a proof would be about."""
    from shoal.proof.artifacts import answer
    from shoal.proof.artifacts_numbers import read_numbers, write_numbers

    with unusable("witness"):
        artifact = _opened(folder)
        found = answer(artifact, read_numbers(inputs, artifact.manifest.inputs, "input"))
        if out is not None:
            write_numbers(out, found)
    if out is None:
        write_json({name: array.tolist() for name, array in found.items()})


@app.command("prove")
@configured()
def prove(
    loaded: Loaded,
    folder: Folder,
    inputs: Input,
    proof: Annotated[Path, typer.Option("--proof", help="Where to write the proof.")],
    output: Annotated[Path | None, typer.Option("--output", help="Where to write the outputs.")] = None,
) -> None:
    """Run the integer graph and prove what it gave."""
    from shoal.node.progress import step_bar
    from shoal.proof.artifacts import prove as prove_answer
    from shoal.proof.artifacts_numbers import read_numbers, write_numbers

    with unusable("prove"), step_bar() as bar:
        check_writable(proof, output)
        artifact = _opened(folder)
        made = prove_answer(artifact, read_numbers(inputs, artifact.manifest.inputs, "input"), bar)
        proof.write_bytes(made.proof)
        if output is not None:
            write_numbers(output, made.outputs)
    write(f"{proof}: {len(made.proof):,} bytes, model {artifact.manifest.model}\n")


@app.command("verify")
@configured()
def verify(
    loaded: Loaded,
    folder: Folder,
    inputs: Input,
    output: Output,
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="What `prove` wrote.")],
    model: Annotated[str | None, typer.Option("--model", help="The digest that the folder must have.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that the model gives these outputs for these inputs. Needs no torch, onnx, compiler or network.

    With committed weights the folder may lack weights.npz: give --model, and nothing in the folder has to be trusted.
    """
    from shoal.core.text import plain
    from shoal.proof.artifacts_check import check_files, in_words
    from shoal.proof.rejected import ProofRejected

    try:
        with unusable("verify"):
            digest, verified = check_files(folder, inputs, output, proof, model)
    except ProofRejected as error:
        if as_json:
            write_json({"valid": False, "reason": str(error), "check": error.check})
        else:
            write(f"INVALID: {plain(str(error))}\n")
        raise typer.Exit(INVALID) from None
    if as_json:
        bits = {"proven": verified.bits_proven, "conjectured": verified.bits_conjectured}
        write_json({"valid": True, "model": digest, "bits": bits})
    else:
        write(f"{in_words(digest, verified)}\n")


@app.command("bench")
@configured()
def bench(
    loaded: Loaded,
    model: Model,
    mode: Bits = "int8",
    fraction: Fraction = 16,
    calibration: Calibration = None,
    low: Low = -1.0,
    high: High = 1.0,
    round_outputs: Rounds = False,
    commit: Annotated[bool, typer.Option("--commit", help="With committed weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure compile, witness, prove and verify of a model on a calibration input, in this process."""
    from shoal.proof.artifacts_bench import STEPS, measure

    with unusable("bench"):
        rows = measure(model, _options(mode, fraction, calibration, low, high, round_outputs, commit))
    if as_json:
        write_json([asdict(row) for row in rows])
        return
    cells = [(row.step, f"{row.wall_s:.3f}", f"{row.cpu_s:.3f}", f"{row.peak_mb:.0f}", f"{row.size:,}") for row in rows]
    write_table(("step", "wall s", "CPU s", "peak MB", "bytes"), cells)
    assert len(rows) == len(STEPS)


@contextmanager
def unusable(what: str) -> Iterator[None]:
    """Everything but a proof that was judged is exit code 2, in words."""
    from shoal.proof.rejected import ProofRejected

    try:
        yield
    except (BadConfig, ProofRejected):
        raise
    except (ShoalError, OSError) as error:
        raise BadConfig(what, str(error)) from error


def check_writable(*files: Path | None) -> None:
    """Before the work, not after it."""
    for file in files:
        if file is not None and not os.access(file.parent, os.W_OK):
            found = "one that is read-only" if file.parent.is_dir() else "none"
            raise BadConfig("file", f"expected a folder to write to, found {found} at {file.parent}")


def _opened(folder: Path) -> Artifact:
    from shoal.proof.artifacts import open_artifact

    return open_artifact(folder)


def _options(
    mode: str, fraction: int, calibration: Path | None, low: float, high: float, round_outputs: bool, commit: bool
) -> CompileOptions:
    from shoal.proof.artifacts_compile import CompileOptions
    from shoal.proof.artifacts_numbers import read_arrays
    from shoal.proof.onnx.precision import INT8, wide

    if mode not in ("int8", "wide"):
        raise BadConfig("mode", f"expected int8 or wide, found {mode!r}")
    if not low < high:
        raise BadConfig("low", f"expected less than --high {high:g}, found {low:g}")
    return CompileOptions(
        INT8 if mode == "int8" else wide(fraction),
        "committed" if commit else "public",
        None if calibration is None else read_arrays(calibration),
        low,
        high,
        rounds_outputs=round_outputs,
    )


def _describe(out: Path, manifest: Manifest, as_json: bool) -> None:
    about: dict[str, Any] = manifest.about
    if as_json:
        write_json({"folder": str(out), "model": manifest.model, "mode": manifest.mode, **about})
        return
    error, circuit, bits = about["accuracy"], about["circuit"], about["bits"]
    write(f"{out}: model {manifest.model}, weights {manifest.mode}, {about['precision']}\n")
    write(f"  {circuit['lookups']:,} lookups, {circuit['identities']:,} identities, {circuit['weights']:,} weights\n")
    write(f"  {bits['proven']:.1f} bits proven, {bits['conjectured']:.1f} conjectured\n")
    write(f"  mean error {error['mean_error']:.3g} of outputs of size {error['rms']:.3g} against the float model, ")
    write(f"same choice on {error['same_choice']:.0%} of {error['samples']} samples\n")
