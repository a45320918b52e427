"""Powers of two for a transformer's tensors, so that numbers have 16 bits and remainders at most 16 too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, log, log2

import numpy as np

from shoal.proof.graph.builder import Builder
from shoal.proof.graph.ir import Ints, Requantize
from shoal.proof.transformer.config import Floats


@dataclass(frozen=True, slots=True)
class Scales:
    """largest: what the reference saw, by tensor. bits: of activations, sign included. residual: fractional bits of
    the embedding, and at most those of the parts added to it.

    headroom  bits by which activations may exceed what was seen
    coarsest  fractional bits that every activation has; where that is more than `bits` bits, it costs another limb
    rounded   bits that a product is rounded by: one column each, if a table has as many
    table     rows of the exponential and bits of the reciprocal root's mantissa (even)
    """

    largest: Mapping[str, float]
    bits: int = 16
    residual: int = 10
    headroom: int = 1
    coarsest: int = 8
    rounded: int = 16
    one: int = 16
    table_bits: int = 16
    mantissa: int = 16

    def fraction(self, name: str) -> int:
        """Fractional bits of an activation: what `bits` bits hold, headroom included, and not fewer than `coarsest`."""
        return max(self.key_fraction(name), min(self.coarsest, self.bits - 1))

    def key_fraction(self, name: str) -> int:
        """Fractional bits of a table's key: `bits` bits and no more."""
        finest = floor(log2(((1 << (self.bits - 1)) - 1) / max(self.largest[name], 1e-6))) - self.headroom
        return min(finest, self.bits - 1)

    def part(self, name: str) -> int:
        """Fractional bits of a part of the residual stream: at worst two less than `residual`, with more limbs."""
        return min(max(self.fraction(name), self.residual - 2), self.residual)

    def power(self, name: str, fraction: int) -> int:
        """2^k that entries stay below, headroom included."""
        return 1 << max(ceil(log2(max(self.largest[name], 1e-6) * 2.0 ** (fraction + self.headroom) + 1)), 1)

    def exponents(self, scores: str, length: int) -> tuple[int, int]:
        """Fractional bits of a softmax's exponents, and how far down a masked score is pushed (in these units).

        The table must reach from the highest logarithm of a sum to the lowest score, and from the lowest logarithm to
        a masked score, whose exponential must round to zero.
        """
        reach, zero = self.largest[scores] * 2.0**self.headroom, (self.one + 1) * log(2.0)
        fraction = floor(log2(((1 << self.table_bits) - 8) / (2 * reach + max(zero, log(length)) + log(length))))
        return fraction, ceil((reach + zero) * 2.0**fraction) + 2

    def weight(self, weights: Floats, fraction: int) -> Ints:
        entries: Ints = np.rint(np.asarray(weights, np.float64) * 2.0**fraction).astype(np.int64)
        return entries

    def weight_fraction(self, weights: Floats, product_fraction: int, factor_fraction: int) -> int:
        """As fine as 16 bits hold and as rounding by `rounded` bits leaves room for."""
        finest = floor(log2(((1 << 15) - 1) / max(float(np.abs(weights).max()), 1e-6)))
        return min(finest, product_fraction + self.rounded - factor_fraction)

    def round_off(self, b: Builder, name: str, x: str, seen: str, fraction: int | None = None) -> str:
        """x rounded to the scale of the reference's tensor `seen`, or to `fraction`."""
        fraction = self.fraction(seen) if fraction is None else fraction
        power = self.power(seen, fraction)
        return b.requantize(name, x, Requantize(b.tensors[x].fraction - fraction, -power, power - 1))
