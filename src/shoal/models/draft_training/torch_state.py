"""Checkpoints of a training: whole or absent, so that a process killed at any moment resumes from the last one.

Besides parameters and optimizer there is nothing to keep: what a step sees depends on its number (see data).
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from shoal.core.errors import BadWeights, LocalError
from shoal.models.draft_training.torch_train import Trainer

SAVE_EVERY_S = 20.0


def save(path: Path, trainer: Trainer) -> None:
    """Flushed to disk before it takes the old one's place."""
    partial = path.with_suffix(".partial")
    state = {
        "step": trainer.step,
        "plan": asdict(trainer.plan),
        "parameters": {name: values.detach() for name, values in trainer.parameters.items()},
        "optimizer": trainer.optimizer.state_dict(),
    }
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def restore(path: Path, trainer: Trainer) -> None:
    """Continue where `path` was saved; nothing happens if there is none. BadWeights for another training's."""
    if not path.exists():
        return
    try:
        state = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise BadWeights(str(path), "checkpoint", "one that this version of Shoal wrote", str(error)) from error
    if state["plan"] != asdict(trainer.plan):
        raise BadWeights(str(path), "plan", str(asdict(trainer.plan)), str(state["plan"]))
    with torch.no_grad():
        for name, values in trainer.parameters.items():
            values.copy_(state["parameters"][name])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.step = state["step"]


def train(
    trainer: Trainer, path: Path, report: Callable[[int, float], None], on_pretrained: Callable[[], None]
) -> None:
    """Advance to the plan's last step, saving now and then. LocalError where the loss stops being a number.

    report         (steps done, loss) after every step.
    on_pretrained  called when the steps on text are done, before the checkpoint that says so.
    """
    saved_at = time.monotonic()
    while trainer.step < trainer.plan.steps:
        loss = trainer.advance()
        if not math.isfinite(loss):
            raise LocalError(f"step {trainer.step}: the loss is {loss}; start again with a lower --learning-rate")
        if trainer.step == trainer.plan.pretrain_steps:
            on_pretrained()
        if trainer.step == trainer.plan.steps or time.monotonic() - saved_at > SAVE_EVERY_S:
            save(path, trainer)
            saved_at = time.monotonic()
        report(trainer.step, loss)


def seconds_per_step(trainer: Trainer, steps: int = 4) -> float:
    """What a step takes on this machine now. The trainer is spent: throw it away."""
    trainer.advance()  # the first one allocates
    began = time.perf_counter()
    for _ in range(steps):
        trainer.advance()
    return (time.perf_counter() - began) / steps
