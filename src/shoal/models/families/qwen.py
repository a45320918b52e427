"""Qwen2 (biases on Q, K, V), Qwen3 (norms on each head of Q and K) and Qwen3-MoE (Qwen3 with experts).

What they add to Llama is said by `config.has_qkv_bias` and `config.has_qk_norm`, which `blocks.attention` reads.
"""

from __future__ import annotations

from typing import TypeVar

from shoal.models.config import ModelConfig
from shoal.models.families.blocks import expert_feed_forward, feed_forward, pre_norm_network
from shoal.models.ops import Ops

X = TypeVar("X")


def forward(ops: Ops[X], config: ModelConfig) -> X:
    """Qwen2 and Qwen3. Logits at the batch's output rows: (outputs, vocab)."""
    return pre_norm_network(ops, config, feed_forward)


def forward_moe(ops: Ops[X], config: ModelConfig) -> X:
    """Qwen3-MoE: every layer's feed-forward is a mixture. Logits at the batch's output rows: (outputs, vocab)."""
    return pre_norm_network(ops, config, expert_feed_forward)
