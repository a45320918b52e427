"""A part of a network: some of its layers, as a checkpoint that any runner runs like a whole one.

The families stay as they are. A part's `config` has its layers alone, its weights are renamed to begin at layer 0, and
`PartOps` stands between the family and the speaker: what the family calls the embedding is the given residual stream,
and what it calls the head is the stream as it leaves the last layer. So running the parts one after the other is, bit
for bit, running the whole (a test per family holds it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from shoal.core.errors import BadConfig
from shoal.models.config import Part
from shoal.models.families import family_forward
from shoal.models.ops import Ops

if TYPE_CHECKING:
    from shoal.models.checkpoint import Checkpoint
    from shoal.models.tensors import Tensor

X = TypeVar("X")

HEAD = ("output_norm.weight", "output.weight")
EMBEDDING = "token_embd.weight"


class Speaker(Ops[X], Protocol[X]):
    """A speaker that can begin and end in the middle of a network."""

    def given(self, width: int) -> X:
        """The batch's `inputs`: (rows, width)."""
        ...

    def gathered(self, x: X) -> X:
        """x at the batch's output rows."""
        ...


def part_of(checkpoint: Checkpoint, part: Part) -> Checkpoint:
    """These layers as a checkpoint of its own; nothing is copied. BadConfig for layers it does not have."""
    config = checkpoint.config
    if not 0 <= part.first <= part.last <= config.num_layers or checkpoint.part is not None:
        raise BadConfig("layers", f"expected layers within 0 to {config.num_layers}, found {part.first} to {part.last}")
    layers = slice(part.first, part.last)
    own = replace(config, num_layers=part.last - part.first, ropes=config.ropes[layers], windows=config.windows[layers])
    return replace(checkpoint, config=own, weights=_weights(checkpoint, part), part=part)


def speak(ops: Speaker[X], checkpoint: Checkpoint) -> X:
    """Say the checkpoint's network, or its part of one: logits, or the residual stream, at the output rows."""
    config, part = checkpoint.config, checkpoint.part
    speaker = ops if part is None else PartOps(ops, part, config.hidden_size)
    said: X = family_forward(config)(speaker, config)
    return said


def _weights(checkpoint: Checkpoint, part: Part) -> dict[str, Tensor]:
    """Those the part needs, under the names the family asks for."""
    is_tied = checkpoint.config.is_tied
    ends = {EMBEDDING} if part.has_embedding or (part.has_head and is_tied) else set()
    ends |= set(HEAD) if part.has_head else set()
    kept = {}
    for name, tensor in checkpoint.weights.items():
        if name in ends:
            kept[name] = tensor
        elif name.startswith("blk."):
            _, layer, rest = name.split(".", 2)
            if part.first <= int(layer) < part.last:
                kept[f"blk.{int(layer) - part.first}.{rest}"] = tensor
    return kept


@dataclass(frozen=True, slots=True)
class PartOps(Generic[X]):
    """`Ops` for a family that thinks it says a whole network. `width` of the residual stream."""

    ops: Speaker[X]
    part: Part
    width: int

    def embed(self, weight: str, scale: float = 1.0) -> X:
        return self.ops.embed(weight, scale) if self.part.has_embedding else self.ops.given(self.width)

    def rms_norm(self, x: X, weight: str, eps: float) -> X:
        is_left_out = weight == HEAD[0] and not self.part.has_head
        return x if is_left_out else self.ops.rms_norm(x, weight, eps)

    def head_norm(self, x: X, weight: str, eps: float, num_heads: int) -> X:
        return self.ops.head_norm(x, weight, eps, num_heads)

    def linear(self, x: X, weights: Sequence[str], biases: Sequence[str | None] = ()) -> tuple[X, ...]:
        return self.ops.linear(x, weights, biases)

    def rope(self, x: X, num_heads: int, kind: int) -> X:
        return self.ops.rope(x, num_heads, kind)

    def attention(
        self, layer: int, q: X, k: X, v: X, scale: float, window: int | None = None, softcap: float = 0.0
    ) -> X:
        return self.ops.attention(layer, q, k, v, scale, window, softcap)

    def gated(self, gate: X, up: X, activation: Literal["silu", "gelu_tanh"]) -> X:
        return self.ops.gated(gate, up, activation)

    def add(self, x: X, y: X) -> X:
        return self.ops.add(x, y)

    def experts(
        self, x: X, router: X, gate: str, up: str, down: str, per_token: int, renormalize: bool,
        activation: Literal["silu", "gelu_tanh"],
    ) -> X:  # fmt: skip
        return self.ops.experts(x, router, gate, up, down, per_token, renormalize, activation)

    def tap(self, layer: int, x: X) -> None:
        self.ops.tap(layer, x)

    def logits(self, x: X, weight: str, softcap: float = 0.0) -> X:
        return self.ops.logits(x, weight, softcap) if self.part.has_head else self.ops.gathered(x)
