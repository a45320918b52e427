"""What will be trained: the draft's shape, its `ModelConfig` and the numbers a training depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.core.errors import BadConfig
from shoal.models.config import Family, ModelConfig

_DENSE: dict[Family, Family] = {"mixtral": "llama", "qwen3moe": "qwen3"}
"""A mixture's draft is its dense relative: the same attention, one feed-forward."""


@dataclass(frozen=True, slots=True)
class DraftShape:
    """hidden_size and ffn_size are multiples of 32, so that every matrix can be quantised."""

    hidden_size: int = 128
    num_layers: int = 1
    ffn_size: int = 384


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a training's result depends on, besides its data.

    pretrain_steps, align_steps  optimizer steps on text, then on the target's outputs; one learning-rate schedule.
    batch, length   windows per step and tokens in each.
    learning_rate   the highest: a linear rise over `warmup` steps, then a linear fall to a tenth.
    frequent        tokens that are in every step's softmax; random more stand for all others (see torch_train).
    """

    shape: DraftShape
    pretrain_steps: int
    align_steps: int
    seed: int = 0
    batch: int = 16
    length: int = 128
    learning_rate: float = 3e-3
    warmup: int = 50
    frequent: int = 2048
    random: int = 2048
    is_pca: bool = True

    @property
    def steps(self) -> int:
        return self.pretrain_steps + self.align_steps

    def rate(self, step: int) -> float:
        """Learning rate of step number `step`, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        return self.learning_rate * rise * (1.0 - 0.9 * step / max(1, self.steps))


def draft_config(target: ModelConfig, shape: DraftShape) -> ModelConfig:
    """The target's block, scaled down, embeddings tied. Heads keep their size, so rope stays what it was.

    BadConfig for a shape that cannot be stored quantised, or is not smaller than the target.
    """
    _check(target, shape)
    family = _DENSE.get(target.family, target.family)
    heads = max(1, shape.hidden_size // target.head_dim)
    group = min(heads, max(1, target.num_heads // target.num_kv_heads))
    while heads % group:
        group -= 1
    return replace(
        target,
        family=family,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        num_heads=heads,
        num_kv_heads=heads // group,
        ffn_size=shape.ffn_size,
        ropes=target.ropes[: shape.num_layers],
        windows=target.windows[: shape.num_layers],
        embed_scale=shape.hidden_size**0.5 if family.startswith("gemma") else target.embed_scale,
        is_tied=True,
        num_experts=0,
        experts_per_token=0,
        expert_ffn_size=0,
        renormalize_experts=True,
    )


def _check(target: ModelConfig, shape: DraftShape) -> None:
    for key, value in (("--hidden", shape.hidden_size), ("--ffn", shape.ffn_size)):
        if value <= 0 or value % 32:
            raise BadConfig(key, f"expected a positive multiple of 32, found {value}")
    if shape.hidden_size > target.hidden_size:
        raise BadConfig("--hidden", f"expected at most the target's {target.hidden_size}, found {shape.hidden_size}")
    if not 1 <= shape.num_layers <= target.num_layers:
        raise BadConfig("--layers", f"expected 1 to the target's {target.num_layers}, found {shape.num_layers}")
