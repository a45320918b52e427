"""Mixtral: Llama's attention, and in every layer a mixture of experts whose weights are renormalised (2401.04088)."""

from __future__ import annotations

from typing import TypeVar

from shoal.models.config import ModelConfig
from shoal.models.families.blocks import expert_feed_forward, pre_norm_network
from shoal.models.ops import Ops

X = TypeVar("X")


def forward(ops: Ops[X], config: ModelConfig) -> X:
    """Logits at the batch's output rows: (outputs, vocab)."""
    return pre_norm_network(ops, config, expert_feed_forward)
