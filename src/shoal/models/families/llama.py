"""Llama 2 and 3, SmolLM2, Mistral: the plain pre-norm decoder. Only `config` tells them apart."""

from __future__ import annotations

from typing import TypeVar

from shoal.models.config import ModelConfig
from shoal.models.families.blocks import feed_forward, pre_norm_network
from shoal.models.ops import Ops

X = TypeVar("X")


def forward(ops: Ops[X], config: ModelConfig) -> X:
    """Logits at the batch's output rows: (outputs, vocab)."""
    return pre_norm_network(ops, config, feed_forward)
