"""A checkpoint as an integer graph whose forward pass can be proven, and how faithful the integers are to the floats.

What is proven is the graph. It is the checkpoint's weights times powers of two, rounded, with every rounding inside a
fixed rule; how far its answers are from the float model's is measured here (`fidelity`), not proven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.core.errors import Unsupported
from shoal.models.checkpoint import Checkpoint
from shoal.models.config import ModelConfig, Rope
from shoal.proof.graph.exact import OutOfRange
from shoal.proof.graph.interpreter import run
from shoal.proof.graph.ir import Graph
from shoal.proof.transformer.build import transformer_graph
from shoal.proof.transformer.config import TransformerConfig, Weights
from shoal.proof.transformer.forward import LOGITS, TOKENS
from shoal.proof.transformer.reference import Reference
from shoal.proof.transformer.scales import Scales

Prompts = Sequence[Sequence[int]]
Doubles = npt.NDArray[np.float64]

LAYER_NAMES = {
    "norm1": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "norm2": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip
"""A layer's weights in `proof.transformer` and in a checkpoint."""


@dataclass(frozen=True, slots=True)
class Floats:
    """A checkpoint in plain numbers."""

    config: TransformerConfig
    weights: Weights


def floats_of(checkpoint: Checkpoint) -> Floats:
    """Dequantised to float32. Raises Unsupported, naming the feature, for networks that are no plain Llama."""
    config = checkpoint.config
    if (found := _unproven(config)) or checkpoint.part is not None:
        raise Unsupported(f"proof of a forward pass: expected a whole plain Llama, found {found or 'a part of one'}")
    names = {"embedding": "token_embd", "norm": "output_norm"} | ({} if config.is_tied else {"output": "output"})
    for layer in range(config.num_layers):
        names |= {f"{layer}.{own}": f"blk.{layer}.{theirs}" for own, theirs in LAYER_NAMES.items()}
    return Floats(
        _shape(config), {own: checkpoint.weights[f"{theirs}.weight"].floats() for own, theirs in names.items()}
    )


def calibrate(floats: Floats, prompts: Prompts) -> Scales:
    """Powers of two that hold the activations of these prompts, and twice as large ones."""
    reference = Reference(floats.config, floats.weights)
    for prompt in prompts:
        reference.logits(prompt)
    return Scales(reference.largest)


def forward_graph(floats: Floats, tokens_len: int, scales: Scales) -> Graph:
    """The graph for prompts of `tokens_len` tokens; scales of longer or shorter ones will do."""
    return transformer_graph(floats.config, floats.weights, tokens_len, scales)


# ---- faithfulness


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The integers against the floats, at the last position of prompts whose next token is known.

    same_token: share of prompts with the same likeliest token. divergence: KL of the integers' distribution from the
    floats', in nats. float_loss, integer_loss: of the true next token, in nats. refused: prompts that left the ranges.
    """

    prompts: int
    refused: int
    same_token: float
    mean_divergence: float
    worst_divergence: float
    float_loss: float
    integer_loss: float


def fidelity(floats: Floats, graph: Graph, prompts: Prompts, followed_by: Sequence[int]) -> Fidelity:
    """Measured on prompts of the graph's length, each followed by a token."""
    reference = Reference(floats.config, floats.weights)
    same, divergences, losses = 0, list[float](), list[tuple[float, float]]()
    for prompt, token in zip(prompts, followed_by, strict=True):
        logits = _integers(graph, prompt)
        if logits is None:
            continue
        wanted, found = _logs(reference.logits(prompt)), _logs(logits)
        same += int(wanted.argmax() == found.argmax())
        divergences.append(float((np.exp(wanted) * (wanted - found)).sum()))
        losses.append((-float(wanted[token]), -float(found[token])))
    kept = max(len(losses), 1)
    means = np.mean(losses or [(np.nan, np.nan)], axis=0)
    worst, mean = max(divergences, default=np.nan), float(np.mean(divergences or [np.nan]))
    refused = len(prompts) - len(losses)
    return Fidelity(len(prompts), refused, same / kept, mean, worst, float(means[0]), float(means[1]))


def _integers(graph: Graph, prompt: Sequence[int]) -> Doubles | None:
    """The graph's logits in the floats' scale; None where an activation leaves its range."""
    try:
        logits = run(graph, {TOKENS: np.asarray(prompt, np.int64)})[LOGITS]
    except OutOfRange:
        return None
    return logits.astype(np.float64) * 2.0 ** -graph.tensors[LOGITS].fraction


def _logs(logits: Doubles) -> Doubles:
    """Logarithms of the distribution."""
    moved = logits - float(logits.max())
    logs: Doubles = moved - float(np.log(np.exp(moved).sum()))
    return logs


# ---- checkpoints


def _shape(config: ModelConfig) -> TransformerConfig:
    return TransformerConfig(
        layers=config.num_layers,
        hidden=config.hidden_size,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        inner=config.ffn_size,
        vocab=config.vocab_size,
        rope_theta=config.rope_kinds[0].theta,
        epsilon=config.norm_eps,
    )


def _unproven(config: ModelConfig) -> str | None:
    """The first feature that the graph's builder does not know."""
    features = {
        f"the family {config.family}": config.family != "llama",
        "rotary positions of several or scaled kinds": not _has_plain_ropes(config),
        "sliding windows": any(window is not None for window in config.windows),
        "an attention scale of its own": not np.isclose(config.query_scale, config.head_dim**-0.5),
        "soft caps": bool(config.attn_softcap or config.logit_softcap),
        "scaled embeddings": config.embed_scale != 1,
        "biases or norms of queries and keys": config.has_qkv_bias or config.has_qk_norm,
        f"the activation {config.activation}": config.activation != "silu",
        "experts": config.num_experts > 0,
    }
    return next((name for name, is_there in features.items() if is_there), None)


def _has_plain_ropes(config: ModelConfig) -> bool:
    kinds = {config.rope_kinds[kind] for kind in config.ropes}
    return all(_is_plain(kind, config) for kind in kinds) and len(kinds) == 1


def _is_plain(rope: Rope, config: ModelConfig) -> bool:
    return rope.scaling == "none" and rope.dims in (0, config.head_dim)
