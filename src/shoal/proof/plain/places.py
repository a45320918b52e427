"""Tensors as flat lists, and where each of their numbers lies in a vector packed from dyadic boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

Tuple = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Row-major integers."""

    shape: Tuple
    flat: list[int]

    @classmethod
    def of(cls, array: Any) -> Tensor:
        """From anything with numpy's `shape`, `reshape` and `tolist`."""
        return cls(tuple(int(n) for n in array.shape), [int(v) for v in array.reshape(-1).tolist()])

    def at(self, index: Tuple) -> int:
        return self.flat[flat_index(self.shape, index)]


def indices(shape: Sequence[int]) -> Iterator[Tuple]:
    return product(*(range(n) for n in shape))


def flat_index(shape: Sequence[int], index: Tuple) -> int:
    found = 0
    for n, i in zip(shape, index, strict=True):
        found = found * n + i
    return found


def places(shapes: Sequence[Tuple]) -> tuple[list[dict[Tuple, int]], int]:
    """For each tensor: index -> position; and how many positions there are.

    Every axis is cut where its length's binary digits say, the largest part first; boxes go one after another by
    falling size, those of one size in the order of tensors and, in a tensor, of their corners.
    """
    boxes = [(number, corner) for number, shape in enumerate(shapes) for corner in product(*map(_cuts, shape))]
    boxes.sort(key=lambda box: -_size(box[1]))
    found, at = [dict[Tuple, int]() for _ in shapes], 0
    for number, corner in boxes:
        for inside in indices([size for _, size in corner]):
            found[number][tuple(start + i for (start, _), i in zip(corner, inside, strict=True))] = at
            at += 1
    return found, at


def _cuts(length: int) -> list[tuple[int, int]]:
    """(start, size) of the parts of an axis."""
    parts, start = list[tuple[int, int]](), 0
    while start < length:
        size = 1 << ((length - start).bit_length() - 1)
        parts.append((start, size))
        start += size
    return parts


def _size(corner: Sequence[tuple[int, int]]) -> int:
    total = 1
    for _, size in corner:
        total *= size
    return total
