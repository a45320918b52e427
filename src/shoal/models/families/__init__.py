"""Networks: one small file per family, each a function `forward(ops, config)` over the vocabulary of `models.ops`.

What it does: says in which order a family's layers do what. What it does not: arithmetic, storage, devices.

Weight names are GGUF's, norm weights are final multipliers (readers resolve Gemma's 1 + w), and rows of Q and K are in
half-split order; so nothing here knows where a weight came from.

Files: blocks (what families share), llama (Llama, SmolLM2, Mistral), qwen (Qwen2, Qwen3, Qwen3-MoE), gemma (2 and 3),
mixtral.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal.models.config import ModelConfig
from shoal.models.families import gemma, llama, mixtral, qwen
from shoal.models.ops import Ops

Forward = Callable[[Ops[Any], ModelConfig], Any]
"""Speak the whole network, once: returns the logits at the batch's output rows, (outputs, vocab)."""


def family_forward(config: ModelConfig) -> Forward:
    """The network of `config.family`."""
    match config.family:
        case "llama":
            return llama.forward
        case "qwen2" | "qwen3":
            return qwen.forward
        case "gemma2" | "gemma3":
            return gemma.forward
        case "mixtral":
            return mixtral.forward
        case "qwen3moe":
            return qwen.forward_moe
