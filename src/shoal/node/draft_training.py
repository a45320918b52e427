"""Training a draft, put together: the target's engine gives outputs, torch trains, a file comes out.

work/settings.json   what was asked for; resuming must not change it
work/text.npy        the text's tokens
work/outputs.jsonl   what the target said
work/plan.json       the number of steps and outputs, once they are settled
work/state.pt        the last checkpoint
work/pretrained.*    the draft before it was aligned
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.core.errors import BadConfig, Unsupported
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.draft_training.data import Data, output_corpus, text_corpus
from shoal.models.draft_training.files import DraftStorage, write_draft
from shoal.models.draft_training.outputs import MAX_TOKENS, Gathering, Output, Target, gather, read_outputs
from shoal.models.draft_training.plan import DraftShape, Plan, draft_config
from shoal.models.draft_training.prompts import Prompts
from shoal.models.draft_training.text import encode_files, text_files
from shoal.models.template import ChatTemplate
from shoal.models.tokenizer import Tokenizer, load_tokenizer
from shoal.node.config import NodeConfig
from shoal.node.progress import Steps, step_bar
from shoal.node.terminal import say

if TYPE_CHECKING:
    from shoal.models.draft_training.torch_train import Trainer

GATHERING_SHARE = 0.4
"""Of the minutes: what the target may take to answer. The rest is training."""

PRETRAINING_SHARE = 1 / 3
"""Of the steps: on text. The target's own outputs are worth more (2411.11055, table 2)."""

DEFAULT_OUTPUTS, UNLIMITED_OUTPUTS = 1000, 100_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training was asked for. steps None: as many as `minutes` allow; outputs None: likewise."""

    target: str
    text: tuple[str, ...]
    shape: DraftShape
    minutes: float
    steps: int | None
    outputs: int | None
    seed: int
    storage: DraftStorage
    learning_rate: float


def require_torch() -> None:
    """Unsupported where training is not possible, with what to install."""
    if importlib.util.find_spec("torch") is None:
        raise Unsupported("training a draft needs torch, which is not installed: pip install 'shoal[torch]'")


def train_draft(config: NodeConfig, settings: Settings, out: Path, is_resumed: bool) -> None:
    """Train and write `out`. `config.model` is the target. Ctrl-C and kill lose less than a minute: resume."""
    target = open_checkpoint(settings.target)
    shape = draft_config(target.config, settings.shape)
    work = _work_folder(out, settings, is_resumed)
    tokenizer = load_tokenizer(target.tokenizer)
    text = _text(work, settings, tokenizer)
    with step_bar() as steps:
        outputs = _outputs(config, settings, work, target, tokenizer, text, steps)
        data = Data(text_corpus(text), output_corpus(outputs))
        write = partial(write_draft, target=target, config=shape, storage=settings.storage)
        trained = _train(config, settings, work, target, data, write, steps)
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, values=trained)


# ---- what is asked for ------------------------------------------------------------------------------------------


def _work_folder(out: Path, settings: Settings, is_resumed: bool) -> Path:
    """Made for a new training, found for one that goes on. BadConfig where that is not so, or settings changed."""
    work = out.with_name(f"{out.name}.work")
    file, wanted = work / "settings.json", json.loads(json.dumps(asdict(settings)))
    if file.exists() != is_resumed:
        problem = "nothing to resume; leave out --resume" if is_resumed else "an unfinished training; add --resume"
        raise BadConfig("--resume", f"{work} holds {problem}{'' if is_resumed else ', or delete that folder'}")
    if is_resumed:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        changed = next((key for key in wanted if wanted[key] != found.get(key)), None)
        if changed is not None:
            was = found.get(changed)
            raise BadConfig("--resume", f"{changed} is {wanted[changed]!r} now, this training began with {was!r}")
    work.mkdir(parents=True, exist_ok=True)
    _write_json(file, wanted)
    return work


def _write_json(file: Path, value: Any) -> None:
    partial_file = file.with_suffix(".partial")
    partial_file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial_file.replace(file)


# ---- data -------------------------------------------------------------------------------------------------------


def _text(work: Path, settings: Settings, tokenizer: Tokenizer) -> np.ndarray:
    file = work / "text.npy"
    if not file.exists():
        tokens = encode_files(text_files([Path(item) for item in settings.text]), tokenizer)
        with file.with_suffix(".partial").open("wb") as stream:
            np.save(stream, tokens)
        file.with_suffix(".partial").replace(file)
    tokens = np.load(file)
    say(f"text: {len(tokens):,} tokens")
    return np.asarray(tokens)


def _outputs(
    config: NodeConfig, settings: Settings, work: Path, target: Checkpoint, tokenizer: Tokenizer, text: np.ndarray,
    steps: Steps,
) -> list[Output]:  # fmt: skip
    """Those the plan names, or as many as the time allows."""
    file = work / "outputs.jsonl"
    if not (work / "plan.json").exists():
        template = ChatTemplate(target.chat_template, tokenizer) if target.chat_template else None
        prompts = Prompts(tokenizer, template, text, settings.seed)
        asyncio.run(_gather(config, _gathering(settings, target), prompts, file, steps))
    outputs = read_outputs(file)
    if not outputs:
        raise BadConfig("--minutes", "expected time for at least one of the target's outputs; give more")
    say(f"outputs: {len(outputs):,}, {sum(len(output.tokens) for output in outputs):,} tokens")
    return outputs


def _gathering(settings: Settings, target: Checkpoint) -> Gathering:
    longest = min(MAX_TOKENS, target.config.context_length // 4)
    if settings.outputs is not None or settings.steps is not None:
        return Gathering(settings.outputs or DEFAULT_OUTPUTS, longest, settings.seed)
    return Gathering(UNLIMITED_OUTPUTS, longest, settings.seed, settings.minutes * GATHERING_SHARE)


async def _gather(config: NodeConfig, options: Gathering, prompts: Prompts, file: Path, steps: Steps) -> None:
    from shoal.node.compose import compose

    words = f"for {options.minutes:.3g} min" if options.minutes is not None else ""
    async with compose(replace(config, draft="off")) as node:  # batches are full: guesses would not pay
        target = Target(node.service.generate, node.service.models()[0].id)
        await gather(target, prompts, options, file, lambda phase, done, total: steps(phase, done, total, words))


# ---- training ---------------------------------------------------------------------------------------------------


def _train(
    config: NodeConfig, settings: Settings, work: Path, target: Checkpoint, data: Data, write: Callable[..., None],
    steps: Steps,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The trained values."""
    import torch

    from shoal.models.draft_training.torch_state import restore, train
    from shoal.models.draft_training.torch_train import trained_values

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    trainer = _trainer(target, data, _plan(settings, work, target, data))
    restore(work / "state.pt", trainer)
    plan = trainer.plan

    def report(step: int, loss: float) -> None:
        is_text = step <= plan.pretrain_steps
        done, total = (step, plan.pretrain_steps) if is_text else (step - plan.pretrain_steps, plan.align_steps)
        steps("text" if is_text else "align", done, total, f"loss {loss:.3f}")

    def on_pretrained() -> None:
        suffix = ".gguf" if target.tokenizer.kind == "gguf" else ""
        write(work / f"pretrained{suffix}", values=trained_values(trainer.parameters))

    train(trainer, work / "state.pt", report, on_pretrained)
    return trained_values(trainer.parameters)


def _trainer(target: Checkpoint, data: Data, plan: Plan) -> Trainer:
    from shoal.models.draft_training.torch_train import Trainer

    return Trainer(draft_config(target.config, plan.shape), plan, data, target.weights["token_embd.weight"])


def _plan(settings: Settings, work: Path, target: Checkpoint, data: Data) -> Plan:
    """The one that was settled, or a new one: the steps asked for, or those that fit the time."""
    file = work / "plan.json"
    plan = Plan(settings.shape, 1, 1, seed=settings.seed, learning_rate=settings.learning_rate)
    if not file.exists():
        total = settings.steps or _steps_that_fit(settings, _trainer(target, data, plan))
        _write_json(file, {"steps": max(2, total)})
    total = int(json.loads(file.read_text(encoding="utf-8"))["steps"])
    on_text = max(1, round(total * PRETRAINING_SHARE))
    return replace(plan, pretrain_steps=on_text, align_steps=total - on_text)


def _steps_that_fit(settings: Settings, trainer: Trainer) -> int:
    from shoal.models.draft_training.torch_state import seconds_per_step

    return int(60 * settings.minutes * (1 - GATHERING_SHARE) / seconds_per_step(trainer))
