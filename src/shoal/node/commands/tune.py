"""`shoal tune`: measure this machine with this model over the engine's knobs, and keep what is better."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.core.errors import BadConfig
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, configured
from shoal.node.terminal import say, write_json, write_table

if TYPE_CHECKING:
    from shoal.node.tuning import Tuned, Tuner

Trials = Annotated[int, typer.Option("--trials", min=1, help="Settings to measure.")]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0.01, help="Stop after this time, if that is sooner.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the study that was stopped.")]
Others = Annotated[
    list[str] | None, typer.Option("--or-model", help="The same network in another quantisation, to choose from.")
]
Int8 = Annotated[bool, typer.Option("--or-int8-kv", help="Try the int8 KV cache too, a little less precise.")]
Transfer = Annotated[
    bool, typer.Option("--transfer", help="Tune for half the cores too, and report what re-tuning gains each way.")
]


@configured(*ENGINE)
def tune(
    loaded: Loaded,
    objective: Annotated[str, typer.Option("--objective", help="throughput, latency or joules.")] = "throughput",
    max_ttft: Annotated[str, typer.Option("--max-ttft", help="Latency: 95th percentile of TTFT.")] = "2s",
    max_tpot: Annotated[str, typer.Option("--max-tpot", help="Latency: 95th percentile of TPOT.")] = "100ms",
    trials: Trials = 40,
    minutes: Minutes = None,
    resume: Resume = False,
    or_model: Others = None,
    or_int8_kv: Int8 = False,
    transfer: Transfer = False,
    sampler: Annotated[str, typer.Option("--sampler", help="tpe or random.")] = "tpe",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same suggestions.")] = 0,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs per trial; the median counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Find the settings that suit this machine and model, and write them to a profile that `shoal up` uses."""
    from shoal.meter import rapl as energy
    from shoal.node.config_values import choice, duration
    from shoal.node.fetch import ensure_model
    from shoal.node.machine import num_cores
    from shoal.node.profiles import profile_file
    from shoal.node.tuning import TuneOptions, Tuner, unprofiled
    from shoal.plan.objective import parse_objective

    goal = parse_objective(
        objective,
        _said("--max-ttft", duration, max_ttft),
        _said("--max-tpot", duration, max_tpot),
        energy.read() is not None,
    )
    drawn = _said("--sampler", choice("tpe", "random"), sampler)
    kv_types = ("int8",) if or_int8_kv else ()
    options = TuneOptions(goal, trials, minutes, resume, tuple(or_model or ()), drawn, seed, repeats, kv_types=kv_types)
    cores = num_cores()
    if transfer and cores < 2:
        raise BadConfig("--transfer", "expected a machine with at least 2 cores, found 1")
    ensure_model(loaded.config)
    path = profile_file(os.environ)
    tuner = Tuner(*unprofiled(loaded, path), options, say)
    tuned = tuner.tune(cores)
    result = _keep(tuner, tuned, path)
    if transfer:
        result["transfer"] = _transfer(tuner, tuned)
    write_json(result) if as_json else _show(result)


def _said(flag: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise BadConfig(flag, str(error)) from None


def _keep(tuner: Tuner, tuned: Tuned, path: Path) -> dict[str, Any]:
    """The contest with the defaults, the profile and the landscape."""
    from shoal.node.profiles import fingerprint
    from shoal.plan.landscape import landscape
    from shoal.plan.objective import name_of, unit
    from shoal.plan.profile import Profile, write_profile
    from shoal.plan.space import changed, describe

    goal = tuner.options.objective
    say("measuring the best against the defaults, in turns")
    match = tuner.against_defaults(tuned)
    options = changed(tuned.space, tuned.settings) if match.is_clear else {}
    before, after = statistics.median(match.first), statistics.median(match.second)
    kept = after if options else before
    write_profile(path, Profile(fingerprint(tuner.base), name_of(goal), unit(goal), kept, before, options))
    picture = tuner.base.home / "tune" / f"landscape-{name_of(goal)}.svg"
    picture.write_text(landscape(tuned.space, tuned.trials, f"{name_of(goal)} of {tuner.base.model}", unit(goal)))
    return {
        "objective": name_of(goal), "unit": unit(goal), "trials": len(tuned.trials), "defaults": before, "best": after,
        "gain": match.gain, "noise": match.noise, "settings": tuned.settings, "kept": options,
        "kept_text": describe(options), "profile": str(path), "landscape": str(picture),
    }  # fmt: skip


def _transfer(tuner: Tuner, here: Tuned) -> list[dict[str, Any]]:
    """T_hpo / T_stale both ways between this machine and one of half its cores."""
    there = tuner.tune(here.cores // 2, may_be_new=True)
    rows = []
    for old, new in ((there, here), (here, there)):
        say(f"measuring what was best on {old.cores} against what is best on {new.cores} cores, in turns")
        match = tuner.contest(old.settings, new.settings, new.cores)
        stale, best = statistics.median(match.first), statistics.median(match.second)
        rows.append({"from_cores": old.cores, "to_cores": new.cores, "t_stale": stale, "t_hpo": best,
                     "gain": match.gain, "noise": match.noise})  # fmt: skip
    return rows


def _show(result: dict[str, Any]) -> None:
    figures = [("the defaults", f"{result['defaults']:.2f} {result['unit']}"),
               ("the best found", f"{result['best']:.2f} {result['unit']}"),
               ("gain", f"{result['gain']:+.1%} (repetitions differ by ±{result['noise']:.1%})"),
               ("the profile sets", result["kept_text"])]  # fmt: skip
    figures += [
        (f"re-tuning from {row['from_cores']} to {row['to_cores']} cores",
         f"T_hpo {row['t_hpo']:.2f} / T_stale {row['t_stale']:.2f}: {row['gain']:+.1%} (±{row['noise']:.1%})")
        for row in result.get("transfer", ())
    ]  # fmt: skip
    write_table(("", ""), [*figures, ("profile", result["profile"]), ("landscape", result["landscape"])])
