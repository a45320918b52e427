"""Layers made of operators. Fractions are powers of two and follow the operands; ranges are the caller's to calibrate.

Softmax, normalisations and attention are in `attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.core.errors import BadConfig
from shoal.proof.circuit import Index, Shape
from shoal.proof.graph import tables
from shoal.proof.graph.builder import MAX_TABLE, Builder, Sum, axis, identity
from shoal.proof.graph.ir import Indices, Requantize
from shoal.proof.graph.ranges import Range, stays_inside


@dataclass(frozen=True, slots=True)
class Rounded:
    """What a rounded tensor should be: entries * 2^-fraction, entries before pooling and rectifying within a range."""

    fraction: int
    within: Range
    relu: bool = False


@dataclass(frozen=True, slots=True)
class Windows:
    """Sliding windows over the last axes. pads: (before, after) for each. ceil_mode is the output shape's matter."""

    kernel: Shape
    strides: Shape
    pads: tuple[tuple[int, int], ...]
    dilations: Shape

    def outputs(self, sizes: Shape) -> Shape:
        """Lengths of the window axes' outputs, rounded down."""
        whole = zip(sizes, self.kernel, self.strides, self.pads, self.dilations, strict=True)
        return tuple((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in whole)

    def indices(self, first_output: int, first_kernel: int) -> Indices:
        """Index of each window axis: stride * output + dilation * kernel - pad."""
        return tuple(
            Index(((first_output + place, stride), (first_kernel + place, dilation)), -pad[0])
            for place, (stride, pad, dilation) in enumerate(zip(self.strides, self.pads, self.dilations, strict=True))
        )


def round_to(b: Builder, name: str, x: str, target: Rounded) -> str:
    """The tensor with `target.fraction`, rounded, and rectified if asked for."""
    x, shift = enough_fraction(b, name, x, target.fraction)
    return b.requantize(name, x, Requantize(shift, target.within.low, target.within.high, target.relu))


def enough_fraction(b: Builder, name: str, x: str, fraction: int) -> tuple[str, int]:
    """x, multiplied by a power of two if it has a smaller fraction, and by how many bits it is to be rounded."""
    shift = b.tensors[x].fraction - fraction
    if shift >= 0:
        return x, shift
    return b.affine(
        f"{name}.up", [(1 << -shift, x, identity(len(b.tensors[x].shape)))], b.tensors[x].shape, 0, fraction
    ), 0


def max_pool(b: Builder, name: str, x: str, windows: Windows, target: Rounded, outputs: Shape | None = None) -> str:
    """Maximum over windows of the last axes, of rounded and (if asked for) rectified entries.

    `outputs`: lengths of the pooled axes, where they are not the windows that fit (`ceil_mode`).
    """
    shape, lead = b.tensors[x].shape, len(b.tensors[x].shape) - len(windows.kernel)
    space = (*shape[:lead], *(outputs or windows.outputs(shape[lead:])))
    indices = (*identity(lead), *windows.indices(lead, len(shape)))
    inside = all(stays_inside(i, n, (*space, *windows.kernel)) for i, n in zip(indices, shape, strict=True))
    if not inside and not target.relu and b.tensors[x].low < 0:
        raise BadConfig(name, "expected entries that are not negative where a maximum is padded (zero would win)")
    x, shift = enough_fraction(b, name, x, target.fraction)
    how = Requantize(shift, target.within.low, target.within.high, target.relu, windows.kernel, indices)
    return b.requantize(name, x, how, space)


def average_pool(b: Builder, name: str, x: str, windows: Windows, share: str, outputs: Shape | None = None) -> str:
    """Sums over windows of the last axes times `share`: one number, or one for each place of the pooled axes."""
    shape, lead = b.tensors[x].shape, len(b.tensors[x].shape) - len(windows.kernel)
    space = (*shape[:lead], *(outputs or windows.outputs(shape[lead:])))
    indices = (*identity(lead), *windows.indices(lead, len(shape)))
    places = tuple(axis(lead + place) for place in range(len(b.tensors[share].shape)))
    return b.contract(name, x, share, Sum(space, windows.kernel, indices, places))


def conv(b: Builder, name: str, x: str, weight: str, windows: Windows, groups: int = 1) -> str:
    """Cross-correlation. x (1, C, spatial...), weight (M, C / groups, kernel...) -> (1, M, spatial...)."""
    shape, kernel = b.tensors[x].shape, b.tensors[weight].shape
    spatial, rank = windows.outputs(shape[2:]), len(windows.kernel)
    out, depth, each = kernel[0], kernel[1], kernel[0] // groups
    # Axes: 0 batch, 1 group, 2 output within the group, spatial..., then channel within the group, kernel...
    space = (shape[0], groups, each, *spatial)
    first = len(space)
    channel = Index(((1, depth), (first, 1)))
    left = (axis(0), channel, *windows.indices(3, first + 1))
    right = (Index(((1, each), (2, 1))), axis(first), *(axis(first + 1 + place) for place in range(rank)))
    made = b.contract(
        f"{name}.grouped" if groups > 1 else f"{name}.sums",
        x,
        weight,
        Sum(space, (depth, *windows.kernel), left, right),
    )
    return b.reshape(name, made, (shape[0], out, *spatial))


def add(b: Builder, name: str, terms: list[tuple[int, str]]) -> str:
    """Sum of coefficient * tensor with numpy's broadcasting, in the finest of the operands' scales."""
    shape = np.broadcast_shapes(*(b.tensors[x].shape for _, x in terms))
    finest = max(b.tensors[x].fraction for _, x in terms)
    reads = [
        (coefficient << (finest - b.tensors[x].fraction), x, broadcast(b.tensors[x].shape, shape))
        for coefficient, x in terms
    ]
    return b.affine(name, reads, shape, 0, finest)


def multiply(b: Builder, name: str, left: str, right: str) -> str:
    """Product entry by entry with numpy's broadcasting; fractions add up."""
    shapes = b.tensors[left].shape, b.tensors[right].shape
    shape = np.broadcast_shapes(*shapes)
    return b.contract(name, left, right, Sum(shape, (), broadcast(shapes[0], shape), broadcast(shapes[1], shape)))


def broadcast(shape: Shape, space: Shape) -> Indices:
    """Indices by which a tensor of `shape` is read over `space`."""
    lead = len(space) - len(shape)
    return tuple(Index() if length == 1 else axis(lead + place) for place, length in enumerate(shape))


def matmul(b: Builder, name: str, left: str, right: str) -> str:
    """numpy's matmul for operands of rank two or more: the last two axes are matrices, the others are broadcast."""
    a, c = b.tensors[left].shape, b.tensors[right].shape
    batch = np.broadcast_shapes(a[:-2], c[:-2])
    space = (*batch, a[-2], c[-1])
    rows, inner = len(batch), len(space)
    how = Sum(
        space,
        (a[-1],),
        (*broadcast(a[:-2], batch), axis(rows), axis(inner)),
        (*broadcast(c[:-2], batch), axis(inner), axis(rows + 1)),
    )
    return b.contract(name, left, right, how)


def transpose(b: Builder, name: str, x: str, order: Shape) -> str:
    shape = b.tensors[x].shape
    indices = tuple(axis(order.index(place)) for place in range(len(shape)))
    return b.affine(name, [(1, x, indices)], tuple(shape[place] for place in order))


def concat(b: Builder, name: str, parts: list[str], along: int) -> str:
    """Parts one behind the other: a sum of shifted reads, each zero beyond its part."""
    shapes = [b.tensors[part].shape for part in parts]
    finest = max(b.tensors[part].fraction for part in parts)
    total = sum(shape[along] for shape in shapes)
    terms, start = [], 0
    for part, shape in zip(parts, shapes, strict=True):
        indices = tuple(axis(place, 1, -start if place == along else 0) for place in range(len(shape)))
        terms.append((1 << (finest - b.tensors[part].fraction), part, indices))
        start += shape[along]
    return b.affine(name, terms, (*shapes[0][:along], total, *shapes[0][along + 1 :]), 0, finest)


def clip(b: Builder, name: str, x: str, low: int, high: int) -> str:
    """max(low, min(high, x)) in the tensor's own integers: two rectifiers, each left out where it has nothing to do."""
    held, rank = b.tensors[x], len(b.tensors[x].shape)
    if held.low < low:
        x = _floor(b, f"{name}.low", x, low)
    if b.tensors[x].high > high:
        flipped = b.affine(f"{name}.flip", [(-1, x, identity(rank))], held.shape)
        flipped = _floor(b, f"{name}.high", flipped, -high)
        x = b.affine(name, [(-1, flipped, identity(rank))], held.shape)
    return x


def _floor(b: Builder, name: str, x: str, low: int) -> str:
    """max(x, low)."""
    shape = b.tensors[x].shape
    moved = b.affine(f"{name}.moved", [(1, x, identity(len(shape)))], shape, -low)
    within = Requantize(0, b.tensors[moved].low, b.tensors[moved].high, relu=True)
    kept = b.requantize(f"{name}.kept", moved, within)
    return b.affine(name, [(1, kept, identity(len(shape)))], shape, low)


def curve(b: Builder, name: str, x: str, function: tables.Curve, fraction: int) -> str:
    """f(x) by table, with `fraction` fractional bits. The tensor's declared range must fit a table."""
    held = b.tensors[x]
    if held.high - held.low >= MAX_TABLE:
        raise BadConfig(
            name, f"expected a range of at most {MAX_TABLE}, found {held.low} .. {held.high}: round it first"
        )
    values = tables.curve(function, held.low, held.high, (held.fraction, fraction))
    return b.table(name, x, values, held.low, fraction)


def embedding(b: Builder, name: str, tokens: str, weight: str) -> str:
    """Rows of `weight` (vocabulary, width) picked by `tokens` (count,), an input."""
    (count,), width = b.tensors[tokens].shape, b.tensors[weight].shape[1]
    row = Index(((0, 1),), gather=tokens)
    return b.affine(name, [(1, weight, (row, axis(1)))], (count, width))
