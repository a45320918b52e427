"""`shoal draft train | report`: a small model that guesses what a target will say, and what its guesses are worth."""

from __future__ import annotations

import sysconfig
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from shoal.core.errors import BadConfig
from shoal.core.units import format_size
from shoal.node.config import NodeConfig
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import say, write_json, write_table

app = typer.Typer(help="Train a draft model for speculative decoding, and measure one.", no_args_is_help=True)

TargetName = Annotated[str, typer.Option("--target", help="The model to draft for: a name, a GGUF file or a folder.")]


@app.command("train")
@configured("device", "kernels", "threads")
def train(
    loaded: Loaded,
    target: TargetName,
    out: Annotated[Path | None, typer.Option("--out", help="Where it goes; default: drafts/ in the store.")] = None,
    text: Annotated[list[Path] | None, typer.Option("--text", help="Text file or folder; default: Python's.")] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Time for outputs and training.")] = 20.0,
    steps: Annotated[int | None, typer.Option("--steps", min=2, help="Exactly so many, whatever the time.")] = None,
    outputs: Annotated[int | None, typer.Option("--outputs", min=1, help="Answers of the target to train on.")] = None,
    hidden: Annotated[int, typer.Option("--hidden", help="Width, a multiple of 32.")] = 128,
    layers: Annotated[int, typer.Option("--layers", help="Depth: costs more time than width.")] = 1,
    ffn: Annotated[int | None, typer.Option("--ffn", help="Inner width; default: three times --hidden.")] = None,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-6, max=1.0, help="The highest.")] = 3e-3,
    quantize: Annotated[str, typer.Option("--quantize", help="Q8_0 or Q4_0 (GGUF targets).")] = "Q8_0",
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same prompts and windows.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
) -> None:
    """Train a draft for a target: text first, then the target's own outputs. --resume goes on after a stop."""
    from shoal.models.draft_training.plan import DraftShape
    from shoal.node.draft_training import Settings, require_torch, train_draft

    require_torch()
    config, path = _target(loaded.config, target)
    if quantize not in ("Q8_0", "Q4_0"):
        raise BadConfig("--quantize", f"expected Q8_0 or Q4_0, found {quantize!r}")
    settings = Settings(
        target=str(path),
        text=tuple(str(item) for item in text or _python_text()),
        shape=DraftShape(hidden, layers, 3 * hidden if ffn is None else ffn),
        minutes=minutes,
        steps=steps,
        outputs=outputs,
        seed=seed,
        storage=cast(Literal["Q8_0", "Q4_0"], quantize),
        learning_rate=learning_rate,
    )
    place = out or config.home / "drafts" / (f"{path.stem}.gguf" if path.is_file() else path.name)
    train_draft(config, settings, place, resume)
    size = sum(item.stat().st_size for item in ([place] if place.is_file() else place.iterdir()))
    say(f"the draft is at {place} ({format_size(size)}); try: shoal draft report --target {target} --draft {place}")


@app.command("report")
@configured("device", "kernels", "threads")
def report(
    loaded: Loaded,
    target: TargetName,
    draft: Annotated[Path, typer.Option("--draft", help="The draft's GGUF file or folder.")],
    length: Annotated[list[int] | None, typer.Option("--length", help="Guesses per round; default: 3.")] = None,
    temperature: Annotated[
        list[float] | None, typer.Option("--temperature", help="0 is greedy; default: 0 and 0.6.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=8, max=512, help="Length of each answer.")] = 96,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, and for what chooses a drafter.")] = False,
) -> None:
    """Measure a draft: acceptance rate, block efficiency, MBSU, its cost here, and wall-clock against no draft."""
    from shoal.models.draft_training.trial import Rules
    from shoal.node.draft_report import measure_draft

    config, path = _target(loaded.config, target)
    if bad := [item for item in length or () if not 1 <= item <= 16]:
        raise BadConfig("--length", f"expected 1 to 16, found {bad[0]}")
    if bad_heat := [item for item in temperature or () if not 0 <= item <= 2]:
        raise BadConfig("--temperature", f"expected 0 to 2, found {bad_heat[0]}")
    rules = [
        Rules(length=count, temperature=heat, max_tokens=tokens)
        for heat in temperature or (0.0, 0.6)
        for count in length or (3,)
    ]
    found = measure_draft(config, path, draft, rules)
    if as_json:
        write_json({**asdict(found), "is_worth_it": found.is_worth_it})
        return
    columns = ("prompts", "temperature", "length", "accepted", "tokens/pass", "MBSU", "draft cost", "verify cost",
               "tokens/s", "without", "wall-clock")  # fmt: skip
    cells = [
        (row.kind, f"{row.temperature:g}", str(row.length), f"{row.acceptance_rate:.3f}",
         f"{row.block_efficiency:.2f}", f"{row.mbsu:.2f}", f"{row.cost_ratio:.3f}", f"{row.verify_ratio:.2f}",
         f"{row.tokens_per_s:.0f}", f"{row.plain_tokens_per_s:.0f}", f"{row.wall_clock:.2f}")
        for row in found.rows
    ]  # fmt: skip
    write_table(columns, cells)
    say(f"this draft is {'worth using' if found.is_worth_it else 'slower than none'} on this machine")


def _target(config: NodeConfig, target: str) -> tuple[NodeConfig, Path]:
    """The configuration with the target as its model, and where the target's weights are. Pulls a known model."""
    from shoal.models.store import Store
    from shoal.node.fetch import ensure_model

    config = replace(config, model=target)
    ensure_model(config)
    return config, Store(config.home).resolve(target)


def _python_text() -> list[Path]:
    """What every Python brings along: its language reference and the sources of its library (PSF licence)."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [library / "pydoc_data" / "topics.py", *sorted(library.glob("*.py"))]
    if not found[0].exists():
        raise BadConfig("--text", "this Python came without its documentation; give text to train on with --text FILE")
    return found
