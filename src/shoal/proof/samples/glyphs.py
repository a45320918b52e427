"""Pictures of digits, drawn from a 5x7 dot font, distorted and noisy: a task small enough to train on in seconds.

For measurements of what rounding costs in accuracy, where no data set may be downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.float32]
SIDE = 28

FONT = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00010 00100 01000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)
"""Rows of each digit's dots."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """pictures: (count, 1, 28, 28) in 0 .. 1. labels: (count,) digits."""

    pictures: Pictures
    labels: npt.NDArray[np.int64]


def glyphs(count: int, seed: int, noise: float = 0.35) -> Glyphs:
    """Digits turned by up to 20 degrees, sheared, scaled, moved, faded, with noise; the same for the same seed."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    font = np.array([[[int(dot) for dot in row] for row in digit.split()] for digit in FONT], np.float64)
    drawn = np.stack([_draw(font[label], rng) for label in labels])
    drawn = drawn * rng.uniform(0.6, 1.0, (count, 1, 1)) + rng.normal(0.0, noise, drawn.shape)
    return Glyphs(np.clip(drawn, 0.0, 1.0).astype(np.float32)[:, None], labels)


def _draw(dots: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """One digit: every pixel looks up the dot it comes from, between four neighbours."""
    angle, shear = rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array(
        [[1.0, 0.0], [shear, 1.0]]
    )
    grid = np.indices((SIDE, SIDE), np.float64).reshape(2, -1) - (SIDE - 1) / 2 - rng.uniform(-3, 3, (2, 1))
    rows, columns = (turn @ grid) / rng.uniform(2.4, 3.4, (2, 1)) + np.array([[3.0], [2.0]])
    return _between(np.pad(dots, 2), rows + 2, columns + 2).reshape(SIDE, SIDE)


def _between(
    dots: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Bilinear; zero beyond the edge."""
    rows, columns = (np.clip(x, 0, n - 1.001) for x, n in zip((rows, columns), dots.shape, strict=True))
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    down, right = rows - top, columns - left
    upper = dots[top, left] * (1 - right) + dots[top, left + 1] * right
    lower = dots[top + 1, left] * (1 - right) + dots[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down
