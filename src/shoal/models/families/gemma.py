"""Gemma 2 and 3: a norm before and after each half-layer ("sandwich"), scaled embeddings, local and global layers.

Gemma 2 (2408.00118) soft-caps attention scores and logits; Gemma 3 (2503.19786) drops the caps, normalises each head of
Q and K, and gives local layers a rope of their own. All of that is `config`; the skeleton is the same.
"""

from __future__ import annotations

from typing import TypeVar

from shoal.models.config import ModelConfig
from shoal.models.families.blocks import attention, embed, feed_forward, head
from shoal.models.ops import Ops

X = TypeVar("X")


def forward(ops: Ops[X], config: ModelConfig) -> X:
    """Logits at the batch's output rows: (outputs, vocab)."""
    x = embed(ops, config)
    for layer in range(config.num_layers):
        mixed = attention(ops, config, layer, _norm(ops, config, layer, "attn_norm", x))
        x = ops.add(x, _norm(ops, config, layer, "post_attention_norm", mixed))
        mixed = feed_forward(ops, config, layer, _norm(ops, config, layer, "ffn_norm", x))
        x = ops.add(x, _norm(ops, config, layer, "post_ffw_norm", mixed))
        ops.tap(layer + 1, x)
    return head(ops, config, x)


def _norm(ops: Ops[X], config: ModelConfig, layer: int, name: str, x: X) -> X:
    return ops.rms_norm(x, f"blk.{layer}.{name}.weight", config.norm_eps)
