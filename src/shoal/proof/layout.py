"""Where tensors lie in one long vector: cut into dyadic pieces, packed by falling size, nothing wasted.

Every axis of length n is cut by the binary expansion of n (576 = 512 + 64); a piece is one interval for each axis, so
its size is a power of two. Packed by falling size, every piece starts at a multiple of its size: at a random point the
packed vector's extension is, for each piece, a product of one short vector per axis and one bit pattern.

    576 x 3, row-major pieces:   [0,512) x [0,2)   [0,512) x [2,3)   [512,576) x [0,2)   [512,576) x [2,3)
    sizes                        1024              512               128                 64
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from shoal.proof import field
from shoal.proof.field import Base

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """start .. start + 2^bits - 1 of an axis."""

    start: int
    bits: int

    @property
    def stop(self) -> int:
        return self.start + (1 << self.bits)


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of tensor number `tensor`, row-major at offset .. offset + 2^bits - 1 of the packed vector."""

    tensor: int
    box: tuple[Interval, ...]
    offset: int

    @property
    def bits(self) -> int:
        return sum(interval.bits for interval in self.box)

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(interval.start, interval.stop) for interval in self.box)


@dataclass(frozen=True, slots=True)
class Layout:
    """pieces: by rising offset. length: the sum of the tensors' sizes, what the pieces fill without a gap."""

    shapes: tuple[Shape, ...]
    pieces: tuple[Piece, ...]
    length: int

    @property
    def bits(self) -> int:
        """Variables of the packed vector's extension: the vector is zero from `length` to 2^bits."""
        return max(self.length - 1, 0).bit_length()


def intervals(length: int) -> tuple[Interval, ...]:
    """The binary expansion of an axis, greatest part first; each start is a multiple of its part."""
    found, start = [], 0
    for bits in reversed(range(length.bit_length())):
        if length >> bits & 1:
            found.append(Interval(start, bits))
            start += 1 << bits
    return tuple(found)


def boxes(shape: Shape) -> list[tuple[Interval, ...]]:
    """The pieces of one tensor. () has one, of size 1; an axis of length 0 leaves none."""
    return list(product(*(intervals(length) for length in shape)))


def layout(shapes: Sequence[Shape]) -> Layout:
    """Packs tensors of these shapes: by falling size, equal sizes in the tensors' order."""
    cut = [Piece(tensor, box, 0) for tensor, shape in enumerate(shapes) for box in boxes(shape)]
    cut.sort(key=lambda piece: -piece.bits)  # stable
    placed, offset = [], 0
    for piece in cut:
        placed.append(Piece(piece.tensor, piece.box, offset))
        offset += 1 << piece.bits
    return Layout(tuple(map(tuple, shapes)), tuple(placed), offset)


def pack(plan: Layout, tensors: Sequence[npt.NDArray[np.integer]], length: int | None = None) -> Base:
    """The packed vector of these tensors of integers, filled with zeros up to `length` (default: none)."""
    for shape, tensor in zip(plan.shapes, tensors, strict=True):
        if tensor.shape != shape:
            raise ValueError(f"expected a tensor of shape {shape}, found {tensor.shape}")
    packed = np.zeros(max(length or 0, plan.length), np.uint64)
    for piece in plan.pieces:
        part = packed[piece.offset : piece.offset + (1 << piece.bits)]
        field.fill_from_ints(part, tensors[piece.tensor][piece.slices])
    return packed


def unpack(plan: Layout, packed: Base) -> list[Base]:
    """The tensors, as field elements, that `pack` put there."""
    tensors = [np.zeros(shape, np.uint64) for shape in plan.shapes]
    for piece in plan.pieces:
        shape = tuple(1 << interval.bits for interval in piece.box)
        tensors[piece.tensor][piece.slices] = packed[piece.offset : piece.offset + (1 << piece.bits)].reshape(shape)
    return tensors
