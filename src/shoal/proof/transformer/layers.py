"""A layer's parts. The residual stream is an unrounded sum of rounded parts; gains are folded into the next matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.proof.circuit import Index
from shoal.proof.graph import operators, tables
from shoal.proof.graph.attention import Norm, SoftmaxScale, normalise, softmax
from shoal.proof.graph.builder import Builder, Sum, axis, identity
from shoal.proof.transformer.config import Floats, TransformerConfig, Weights, rotations
from shoal.proof.transformer.scales import Scales

ROTATION_BITS = 14


@dataclass(frozen=True, slots=True)
class Parts:
    """What a graph is made from. length: of the prompt."""

    b: Builder
    config: TransformerConfig
    weights: Weights
    scales: Scales
    length: int

    def norm(self, name: str, x: str) -> str:
        """x over its length, row by row; times sqrt(n) and the gain it is RMSNorm (both are in the next matrix)."""
        s = self.scales
        how = Norm(self.config.epsilon, False, s.mantissa, s.bits - 2, s.rounded)
        return normalise(self.b, name, x, how)

    def gained(self, matrix: str, norm: str) -> Floats:
        """The matrix (out, in) that takes unit vectors: the norm's gain and sqrt(n) folded in."""
        gain = np.asarray(self.weights[norm], np.float64) * np.sqrt(self.config.hidden)
        folded: Floats = np.asarray(self.weights[matrix], np.float64) * gain
        return folded

    def project(self, name: str, x: str, matrix: Floats, fraction: int | None = None) -> str:
        """x W' rounded to the scale of `name`. x (rows, in), matrix (out, in)."""
        b, s = self.b, self.scales
        target = s.fraction(name) if fraction is None else fraction
        fine = s.weight_fraction(matrix, target, b.tensors[x].fraction)
        weight = b.weight(f"{name}.weight", s.weight(matrix, fine), fine)
        rows, (out, depth) = b.tensors[x].shape[0], matrix.shape
        how = Sum((rows, out), (depth,), (axis(0), axis(2)), (axis(1), axis(2)))
        return s.round_off(b, name, b.contract(f"{name}.sums", x, weight, how), name, target)


def rows_from(p: Parts, name: str, x: str, first: int) -> str:
    """Rows first, first + 1, ... of x (rows, width)."""
    if first == 0:
        return x
    rows, width = p.b.tensors[x].shape
    return p.b.affine(name, [(1, x, (axis(0, 1, first), axis(1)))], (rows - first, width))


def rotate(p: Parts, name: str, x: str, heads: int, first: int) -> str:
    """Rotary positions. x (rows, heads * head_dim), row r is position first + r -> (rows, heads, 2, head_dim / 2)."""
    b, half = p.b, p.config.head_dim // 2
    rows = b.tensors[x].shape[0]
    split = b.reshape(f"{name}.split", x, (rows, heads, 2, half))
    how = Sum(
        (rows, heads, 2, half),
        (2,),
        (axis(0), axis(1), axis(4), axis(3)),
        (axis(0, 1, first), axis(4), axis(2), axis(3)),
    )
    turned = b.contract(f"{name}.turned", split, _rotation(p), how)
    return p.scales.round_off(b, name, turned, name)


def _rotation(p: Parts) -> str:
    """cos and sin of all positions as matrices: (length, from half, to half, frequency)."""
    if "rotation" not in p.b.tensors:
        cos, sin = rotations(p.config, p.length)
        turn = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
        p.b.constant("rotation", np.rint(turn * 2.0**ROTATION_BITS).astype(np.int64), ROTATION_BITS)
    return "rotation"


def attention(p: Parts, layer: int, x: str, first: int) -> str:
    """Causal attention of the positions from `first` on to all before them; the part it adds to the residual stream."""
    c = p.config
    unit = p.norm(f"{layer}.norm1", x)
    asking = rows_from(p, f"{layer}.asking", unit, first)
    scale = 1 / np.sqrt(c.head_dim)
    q = p.project(f"{layer}.q", asking, p.gained(f"{layer}.q", f"{layer}.norm1"))
    k, v = (p.project(f"{layer}.{name}", unit, p.gained(f"{layer}.{name}", f"{layer}.norm1")) for name in "kv")
    q, k = rotate(p, f"{layer}.q.rotated", q, c.heads, first), rotate(p, f"{layer}.k.rotated", k, c.kv_heads, 0)
    shares = _shares(p, layer, _scores(p, layer, (q, k), first), first, scale)
    mixed = _mix(p, layer, (shares, v), first)
    return p.project(f"{layer}.o", mixed, np.asarray(p.weights[f"{layer}.o"], np.float64), p.scales.part(f"{layer}.o"))


def _scores(p: Parts, layer: int, pair: tuple[str, str], first: int) -> str:
    """Products of query and key, (kv head, group, row, distance back): key = first + row - distance, zero before 0."""
    c, rows = p.config, p.b.tensors[pair[0]].shape[0]
    groups = c.heads // c.kv_heads
    head = Index(((0, groups), (1, 1)))
    how = Sum(
        (c.kv_heads, groups, rows, p.length),
        (2, c.head_dim // 2),
        (axis(2), head, axis(4), axis(5)),
        (_back(first), axis(0), axis(4), axis(5)),
    )
    return p.b.contract(f"{layer}.scores", *pair, how)


def _back(first: int) -> Index:
    """Position first + row - distance, of axes 2 and 3."""
    return Index(((2, 1), (3, -1)), first)


def _shares(p: Parts, layer: int, scores: str, first: int, scale: float) -> str:
    """Softmax over distances. What lies before the first position is pushed to where the exponential is zero."""
    b, s = p.b, p.scales
    shape = b.tensors[scores].shape
    # 1 / sqrt(head_dim) is a power of two times at most sqrt(2): the power moves the fraction, the rest is a product.
    scaled = _times(b, f"{layer}.scaled", scores, scale)
    fraction, push = s.exponents(f"{layer}.scores", p.length)
    shift = b.tensors[scaled].fraction - fraction
    mask = f"before {first} {shape[2]}"
    if mask not in b.tensors:
        row, distance = np.indices(shape[2:])
        b.constant(mask, (distance > first + row).astype(np.int64))
    terms = [(1, scaled, identity(4)), (-(push << shift), mask, (axis(2), axis(3)))]
    pushed = b.affine(f"{layer}.pushed", terms, shape)
    return softmax(b, f"{layer}.shares", pushed, SoftmaxScale(fraction, s.one, 1 << s.table_bits))


def _times(b: Builder, name: str, x: str, factor: float) -> str:
    """factor * x: exactly if it is a power of two, else to 8 bits."""
    bits = -int(np.floor(np.log2(factor)))
    whole = factor * 2.0**bits
    fine = 0 if whole == 1 else 8
    rank, held = len(b.tensors[x].shape), b.tensors[x]
    return b.affine(name, [(round(whole * 2**fine), x, identity(rank))], held.shape, 0, held.fraction + bits + fine)


def _mix(p: Parts, layer: int, pair: tuple[str, str], first: int) -> str:
    """Values by their shares, (rows, heads * head_dim)."""
    c, (shares, values) = p.config, pair
    rows, groups = p.b.tensors[shares].shape[2], c.heads // c.kv_heads
    # Axes: row, kv head, group, entry; then the distance.
    how = Sum(
        (rows, c.kv_heads, groups, c.head_dim),
        (p.length,),
        (axis(1), axis(2), axis(0), axis(4)),
        (Index(((0, 1), (4, -1)), first), Index(((1, c.head_dim), (3, 1)))),
    )
    sums = p.b.contract(f"{layer}.mixed.sums", shares, values, how)
    rounded = p.scales.round_off(p.b, f"{layer}.mixed.heads", sums, f"{layer}.mixed")
    return p.b.reshape(f"{layer}.mixed", rounded, (rows, c.heads * c.head_dim))


def mlp(p: Parts, layer: int, x: str) -> str:
    """down(silu(gate) * up): the part it adds to the residual stream."""
    b, s = p.b, p.scales
    unit = p.norm(f"{layer}.norm2", x)
    gate_matrix, up_matrix = (p.gained(f"{layer}.{name}", f"{layer}.norm2") for name in ("gate", "up"))
    gate = p.project(f"{layer}.gate", unit, gate_matrix, s.key_fraction(f"{layer}.gate"))
    up = p.project(f"{layer}.up", unit, up_matrix)
    active = operators.curve(b, f"{layer}.silu", gate, tables.silu, s.fraction(f"{layer}.silu"))
    product = s.round_off(
        b, f"{layer}.product", operators.multiply(b, f"{layer}.products", active, up), f"{layer}.product"
    )
    return p.project(
        f"{layer}.down", product, np.asarray(p.weights[f"{layer}.down"], np.float64), s.part(f"{layer}.down")
    )
