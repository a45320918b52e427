"""What families share: attention with its options, the two kinds of feed-forward, the head, and the pre-norm skeleton.

Options are read from `config` (`has_qkv_bias`, `has_qk_norm`, `windows`, `ropes`), never from values: the native
speaker calls a network once and keeps what it said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shoal.models.config import ModelConfig
from shoal.models.ops import Ops

X = TypeVar("X")

Mixer = Callable[[Ops[X], ModelConfig, int, X], X]
"""A feed-forward: (ops, config, layer, normed rows) -> what is added to the residual stream."""


def embed(ops: Ops[X], config: ModelConfig) -> X:
    """The residual stream before layer 0, which is also tap 0: (rows, hidden)."""
    x = ops.embed("token_embd.weight", config.embed_scale)
    ops.tap(0, x)
    return x


def attention(ops: Ops[X], config: ModelConfig, layer: int, x: X) -> X:
    """Grouped-query attention of normed rows, projected back: (rows, hidden)."""
    q, k, v = _query_key_value(ops, config, layer, x)
    if config.has_qk_norm:
        q = ops.head_norm(q, f"blk.{layer}.attn_q_norm.weight", config.norm_eps, config.num_heads)
        k = ops.head_norm(k, f"blk.{layer}.attn_k_norm.weight", config.norm_eps, config.num_kv_heads)
    q = ops.rope(q, config.num_heads, config.ropes[layer])
    k = ops.rope(k, config.num_kv_heads, config.ropes[layer])
    mixed = ops.attention(layer, q, k, v, config.query_scale, config.windows[layer], config.attn_softcap)
    (out,) = ops.linear(mixed, [f"blk.{layer}.attn_output.weight"])
    return out


def _query_key_value(ops: Ops[X], config: ModelConfig, layer: int, x: X) -> tuple[X, ...]:
    names = [f"blk.{layer}.attn_{letter}" for letter in "qkv"]
    biases = [f"{name}.bias" for name in names] if config.has_qkv_bias else []
    return ops.linear(x, [f"{name}.weight" for name in names], biases)


def feed_forward(ops: Ops[X], config: ModelConfig, layer: int, x: X) -> X:
    """down(activation(gate(x)) * up(x)): (rows, hidden)."""
    gate, up = ops.linear(x, [f"blk.{layer}.ffn_gate.weight", f"blk.{layer}.ffn_up.weight"])
    (down,) = ops.linear(ops.gated(gate, up, config.activation), [f"blk.{layer}.ffn_down.weight"])
    return down


def expert_feed_forward(ops: Ops[X], config: ModelConfig, layer: int, x: X) -> X:
    """The `experts_per_token` experts a router picks for each row, weighted and summed: (rows, hidden)."""
    (router,) = ops.linear(x, [f"blk.{layer}.ffn_gate_inp.weight"])
    gate, up, down = (f"blk.{layer}.ffn_{part}_exps.weight" for part in ("gate", "up", "down"))
    return ops.experts(
        x, router, gate, up, down, config.experts_per_token, config.renormalize_experts, config.activation
    )


def head(ops: Ops[X], config: ModelConfig, x: X) -> X:
    """Logits at the batch's output rows: (outputs, vocab)."""
    normed = ops.rms_norm(x, "output_norm.weight", config.norm_eps)
    return ops.logits(normed, "token_embd.weight" if config.is_tied else "output.weight", config.logit_softcap)


def pre_norm_network(ops: Ops[X], config: ModelConfig, mixer: Mixer[X]) -> X:
    """x += attention(norm(x)); x += mixer(norm(x)), layer after layer; then the head."""
    x = embed(ops, config)
    for layer in range(config.num_layers):
        normed = ops.rms_norm(x, f"blk.{layer}.attn_norm.weight", config.norm_eps)
        x = ops.add(x, attention(ops, config, layer, normed))
        normed = ops.rms_norm(x, f"blk.{layer}.ffn_norm.weight", config.norm_eps)
        x = ops.add(x, mixer(ops, config, layer, normed))
        ops.tap(layer + 1, x)
    return head(ops, config, x)
