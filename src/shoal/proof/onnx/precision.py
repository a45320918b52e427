"""How fine the integers are: `INT8`, where every tensor has a scale of its own, and `wide`, where all share one."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log2

from shoal.core.errors import BadConfig
from shoal.proof.graph.ranges import Range


@dataclass(frozen=True, slots=True)
class Precision:
    """Exactly one of the two is set.

    bits      weights and activations have this many bits, sign included: the scale is the finest power of two that fits
    fraction  all of them have this many fractional bits, as many whole ones as they need
    headroom  activations may be this many bits larger than on the calibration samples before a run is refused
    """

    name: str
    bits: int | None = None
    fraction: int | None = None
    headroom: int = 1

    def fraction_of(self, largest: float) -> int:
        """Fractional bits of a tensor whose entries reach `largest`."""
        if self.fraction is not None:
            return self.fraction
        assert self.bits is not None, "one of the two is set"
        whole = (1 << (self.bits - 1)) - 1
        return 0 if largest == 0 else floor(log2(whole / largest) + 1e-9)

    def table_fraction(self, largest: float) -> int:
        """Fractional bits of a table's key: 16 bits with the headroom, or 10 where all is 8 bits anyway."""
        bits = 15 if self.fraction is not None else self.bits or 8
        finest = 0 if largest == 0 else floor(log2(((1 << bits) - 1) / largest) + 1e-9) - self.headroom
        return finest if self.fraction is None else min(finest, self.fraction)

    def within(self, low: float, high: float, fraction: int) -> Range:
        """The range of entries allowed for values seen in low .. high: powers of two, headroom included."""
        return Range(-self._power(-low, fraction), max(self._power(high, fraction), 1) - 1)

    def _power(self, value: float, fraction: int) -> int:
        entry = value * 2.0**fraction
        return 0 if entry <= 0.5 else 1 << (max(ceil(log2(entry + 1)), 0) + self.headroom)


INT8 = Precision("int8", bits=8)


def wide(fraction: int = 18) -> Precision:
    """Fractions of 16 to 18 bits: JSTprove's scale is 2^18."""
    if not 8 <= fraction <= 20:
        raise BadConfig("fraction", f"expected 8 to 20 fractional bits, found {fraction}")
    return Precision(f"wide{fraction}", fraction=fraction)
