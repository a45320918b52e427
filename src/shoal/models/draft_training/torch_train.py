"""The training itself: where parameters begin, what a step does.

The vocabulary dwarfs a draft: of its parameters 95 % are embeddings, and a full softmax would be nine tenths of each
step. So each step's softmax is over candidates: the frequent tokens, the window's own targets, and a random few that
stand for all the rest, each with the weight of those it stands for (sampled softmax, 1412.2007 section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

from shoal.kernels.quant import dequantize
from shoal.models.config import ModelConfig
from shoal.models.draft_training.data import Data, Window
from shoal.models.draft_training.plan import Plan
from shoal.models.draft_training.torch_speaker import TrainingOps
from shoal.models.families import family_forward
from shoal.models.names import expected_shapes
from shoal.models.tensors import Tensor

_CLOSED = ("attn_output.weight", "ffn_down.weight")
"""Zero at first: a layer begins as nothing, and the draft as the head of its embeddings."""

_EMBEDDING, _FINAL_NORM = "token_embd.weight", "output_norm.weight"
_ROWS_AT_ONCE = 4096


class Trainer:
    """A draft in training. `step` counts the optimizer steps that are done."""

    def __init__(self, config: ModelConfig, plan: Plan, data: Data, embedding: Tensor) -> None:
        self.config, self.plan, self._data = config, plan, data
        self.parameters = initial_parameters(config, plan, embedding)
        self.step = 0
        self._frequent = data.frequent(config.vocab_size, plan.frequent)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )

    def advance(self) -> float:
        """One optimizer step; the loss (nats per token, over the step's candidates) before it."""
        window = self._data.window(self.plan, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._sampled_loss(window)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def full_loss(self, window: Window) -> float:
        """Nats per counted token of a window, over the whole vocabulary."""
        with torch.inference_mode():
            logits = self._logits(window, None)
            wanted = torch.from_numpy(window.counts.flatten())
            return float(functional.cross_entropy(logits[wanted], torch.from_numpy(window.targets.flatten())[wanted]))

    def _sampled_loss(self, window: Window) -> torch.Tensor:
        wanted = torch.from_numpy(window.counts.flatten())
        if not bool(wanted.any()):
            return sum((p.sum() for p in self.parameters.values()), torch.zeros(())) * 0.0
        random = np.random.default_rng([self.plan.seed, self.step, 1])
        rows, bias = candidates(window.targets, self._frequent, self.config.vocab_size, self.plan.random, random)
        logits = self._logits(window, torch.from_numpy(rows))[wanted] + torch.from_numpy(bias)
        place = np.searchsorted(rows[: np.count_nonzero(bias == 0)], window.targets.flatten())
        return functional.cross_entropy(logits, torch.from_numpy(place)[wanted])

    def _logits(self, window: Window, rows: torch.Tensor | None) -> torch.Tensor:
        ops = TrainingOps(self.config, self.parameters, torch.from_numpy(window.inputs), rows)
        logits: torch.Tensor = family_forward(self.config)(ops, self.config)
        return logits


def candidates(
    targets: np.ndarray, frequent: np.ndarray, vocab_size: int, count: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(rows int64, bias float32): certain rows, sorted, with bias 0; then `count` of the others, which stand for all.

    Where the others are no more than `count`, every row is there with bias 0.
    """
    certain = np.union1d(frequent, targets)
    if vocab_size - len(certain) <= count:
        return np.arange(vocab_size), np.zeros(vocab_size, np.float32)
    others = np.ones(vocab_size, bool)
    others[certain] = False
    picked = random.choice(np.flatnonzero(others), count, replace=False)
    weight = math.log((vocab_size - len(certain)) / count)
    bias = np.concatenate([np.zeros(len(certain)), np.full(count, weight)]).astype(np.float32)
    return np.concatenate([certain, picked]), bias


def initial_parameters(config: ModelConfig, plan: Plan, embedding: Tensor) -> dict[str, torch.Tensor]:
    """float32, requiring gradients. Embeddings are the target's, projected, or noise of the same size."""
    random = torch.Generator().manual_seed(plan.seed)
    parameters: dict[str, torch.Tensor] = {}
    for name, shape in expected_shapes(config).items():
        if name == _EMBEDDING:
            values = projected_rows(embedding, config.hidden_size)
            if not plan.is_pca:
                values = torch.randn(shape, generator=random) * values.square().mean().sqrt()
            parameters[name] = values
        elif len(shape) == 1:
            parameters[name] = torch.full(shape, float(name.endswith("norm.weight")))
        elif name.endswith(_CLOSED):
            parameters[name] = torch.zeros(shape)
        else:
            parameters[name] = torch.randn(shape, generator=random) * shape[-1] ** -0.5
    size = float(parameters[_EMBEDDING].square().mean().sqrt())
    parameters[_FINAL_NORM].fill_(1.0 / (size * config.hidden_size**0.5))
    return {name: values.requires_grad_() for name, values in parameters.items()}


def projected_rows(embedding: Tensor, size: int) -> torch.Tensor:
    """(vocab, size): the rows on the `size` directions that keep most of their squared length (truncated SVD)."""
    columns = embedding.shape[1]
    moment = sum((part.T @ part for part in _row_parts(embedding)), torch.zeros(columns, columns))
    _, directions = torch.linalg.eigh(moment)  # in order of growing share
    kept = directions.flip(1)[:, :size]
    return torch.cat([part @ kept for part in _row_parts(embedding)]).contiguous()


def _row_parts(tensor: Tensor) -> list[torch.Tensor]:
    rows = range(0, tensor.shape[0], _ROWS_AT_ONCE)
    return [
        torch.from_numpy(dequantize(tensor.storage, tensor.data[start : start + _ROWS_AT_ONCE], tensor.shape[1]))
        for start in rows
    ]


def trained_values(parameters: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The parameters as float32 arrays, for a file."""
    return {name: values.detach().numpy().copy() for name, values in parameters.items()}
