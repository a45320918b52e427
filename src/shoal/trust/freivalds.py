"""Freivalds' check: is Y = X W, over the integers, without computing X W.

    draw r;  X (W r) == Y r  (mod p)        M (K + N) + K N operations instead of M K N

A wrong Y passes with chance 1/p for each repetition, whoever made it and however, as long as r is drawn after Y is
fixed and never shown. With s = W r computed beforehand (Slalom, arXiv 1806.03287, section 3.2) K N falls away too;
r must stay secret for as long as it is used.

Rules that stay true in this file:
- equality is over the integers: primes are added until their product exceeds any difference the ranges allow;
- the bound is computed from the real shapes, repetitions and uses, and includes the bias of drawing r.

What this does not protect against: a matrix W that is not the model's (compare its digest first), inputs X that are not
the previous step's outputs (`freivalds_graph` follows them), and float arithmetic, where no equality holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from shoal.core.errors import InvalidRequest

Ints = NDArray[np.int64]
Coins = Callable[[int, tuple[int, ...]], Ints]
"""(prime, shape) -> numbers in [0, prime), independent and uniform but for 2^-64."""

PRIMES = (2**31 - 1, 2**31 - 19, 2**31 - 61)
"""The three largest primes below 2^31: their products with int16 sum up to 65,536 terms in 63 bits."""

_LIMB_BITS = 16
_LIMB_COLUMNS = 2**16


def system_coins(prime: int, shape: tuple[int, ...]) -> Ints:
    """From the system's randomness: 64 bits reduced, so that no value is likelier than `worst_chance` says."""
    raw = np.frombuffer(os.urandom(8 * math.prod(shape)), np.uint64)
    return (raw % np.uint64(prime)).astype(np.int64).reshape(shape)


def worst_chance(prime: int) -> Fraction:
    """The most likely value's chance in `system_coins`."""
    return Fraction(2**64 // prime + 1, 2**64)


@dataclass(frozen=True, slots=True)
class Product:
    """The claim y = x w; integers of any width: x (rows, inner), w (inner, columns), y (rows, columns)."""

    x: np.ndarray
    w: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        shapes = self.x.shape, self.w.shape, self.y.shape
        is_matrix = all(len(shape) == 2 and all(shape) for shape in shapes)
        if not is_matrix or shapes[0][1] != shapes[1][0] or shapes[2] != (shapes[0][0], shapes[1][1]):
            raise InvalidRequest(f"expected shapes (m, k), (k, n) and (m, n), found {shapes}")
        if any(matrix.dtype.kind not in "iu" or matrix.dtype == np.uint64 for matrix in (self.x, self.w, self.y)):
            raise InvalidRequest("expected signed integers of at most 64 bits")

    @property
    def largest_difference(self) -> int:
        """No element of x w - y is larger, whatever the elements are."""
        return _largest(self.x) * _largest(self.w) * int(self.x.shape[1]) + _largest(self.y)


def primes_for(difference: int, primes: Sequence[int] = PRIMES) -> tuple[int, ...]:
    """The fewest whose product exceeds `difference`, so that only 0 is 0 modulo all of them. InvalidRequest if none."""
    for count in range(1, len(primes) + 1):
        if math.prod(primes[:count]) > difference:
            return tuple(primes[:count])
    raise InvalidRequest(f"expected numbers that stay below {math.prod(primes)}, found up to {difference}")


def is_product(product: Product, repetitions: int = 2, coins: Coins = system_coins) -> bool:
    """Whether y = x w. Always true of a true one; of a false one with at most `error_bound`."""
    return all(
        matches(product, draw(product.w, prime, repetitions, coins)) for prime in primes_for(product.largest_difference)
    )


@dataclass(frozen=True, slots=True)
class Secret:
    """r (columns, repetitions) and s = w r (inner, repetitions) modulo `prime`, for one matrix. Shown to nobody."""

    prime: int
    r: Ints
    s: Ints

    def __repr__(self) -> str:
        return f"Secret({self.r.shape[0]} x {self.r.shape[1]} modulo {self.prime})"


def draw(w: np.ndarray, prime: int, repetitions: int, coins: Coins = system_coins) -> Secret:
    """A fresh secret for `w`: the only step that reads the weights."""
    if repetitions < 1:
        raise InvalidRequest(f"expected at least one repetition, found {repetitions}")
    r = coins(prime, (w.shape[1], repetitions))
    return Secret(prime, r, times(w, r, prime))


def matches(product: Product, secret: Secret) -> bool:
    """x s == y r modulo the secret's prime."""
    left = times(product.x, secret.s, secret.prime)
    return bool(np.array_equal(left, times(product.y, secret.r, secret.prime)))


def error_bound(repetitions: int, num_products: int = 1, uses: int = 1, primes: Sequence[int] = PRIMES) -> Fraction:
    """At most this chance that any of `num_products` false claims passes, also in any of `uses` of one secret.

    A difference that is not 0 is not 0 modulo one of the primes; there each repetition lets it pass with the chance of
    one value of one coordinate. The sum over products and uses is the union bound; it holds for a prover who learns of
    each use only that it passed, so a secret ends with the first failure.
    """
    single = max(worst_chance(prime) for prime in primes) ** repetitions
    return min(Fraction(1), num_products * uses * single)


def bits(bound: Fraction) -> float:
    """-log2 of a bound."""
    return math.log2(bound.denominator) - math.log2(bound.numerator) if bound else math.inf


def times(matrix: np.ndarray, vectors: Ints, prime: int) -> Ints:
    """matrix @ vectors modulo prime, exactly: no sum leaves 63 bits. vectors are in [0, prime), prime < 2^31."""
    if _largest(matrix) * prime * matrix.shape[1] < 2**63:
        return np.asarray((matrix.astype(np.int64) @ vectors) % prime)
    total = np.zeros((matrix.shape[0], vectors.shape[1]), np.int64)
    for start in range(0, matrix.shape[1], _LIMB_COLUMNS):
        part, rows = matrix[:, start : start + _LIMB_COLUMNS], vectors[start : start + _LIMB_COLUMNS]
        total = (total + _times_in_limbs(part.astype(np.int64) % prime, rows, prime)) % prime
    return total


def _times_in_limbs(matrix: Ints, vectors: Ints, prime: int) -> Ints:
    """2^31 x 2^15 or 2^16 x 2^16 columns: below 2^63."""
    low, high = vectors & (2**_LIMB_BITS - 1), vectors >> _LIMB_BITS
    return np.asarray(((matrix @ high % prime << _LIMB_BITS) + matrix @ low % prime) % prime)


def _largest(matrix: np.ndarray) -> int:
    """The largest magnitude; numpy's own abs(-128) is -128 in int8."""
    return max(-int(matrix.min()), int(matrix.max()))
