"""Proof of capability: items with known answers, each asked as a pair in both orders; most must be right.

An item counts as right only if both orders prefer the right answer, so that a judge that votes by position passes none.
Items are drawn fresh (`fresh`), and what was asked once is never asked again: learning them by heart earns nothing.

How often a judge passes that is right on an item (both orders) with chance p: `passes`. With 17 of 20, p = 0.5 passes
1.3 times in a thousand, a coin for each question (p = 0.25) once in 1e8, p = 0.9 87 times in a hundred.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

from shoal.core.errors import LocalError

MOST_DRAWS = 64


@dataclass(frozen=True, slots=True)
class Item:
    """A question, its right answer and a wrong one that looks like it."""

    question: str
    right: str
    wrong: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.question.encode()).digest()


@dataclass(frozen=True, slots=True)
class Rules:
    items: int = 20
    needed: int = 17


@dataclass(frozen=True, slots=True)
class Asked:
    """Item number `item` of a paper; whether its right answer is shown as A."""

    item: int
    right_first: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """How many items were right in both orders, of how many; turned: items whose verdict changed with the order."""

    right: int
    asked: int
    turned: int

    def has_passed(self, rules: Rules = Rules()) -> bool:
        return self.asked >= rules.items and self.right >= rules.needed


def fresh(make: Callable[[int, int], Sequence[Item]], count: int, used: set[bytes], draw: random.Random) -> list[Item]:
    """`count` items that `used` does not hold; they are added to it. `make`: (how many, seed) -> items.

    LocalError where the source has no more new ones.
    """
    found: list[Item] = []
    for _ in range(MOST_DRAWS):
        for item in make(count, draw.getrandbits(31)):
            if item.digest not in used and item.right != item.wrong and len(found) < count:
                used.add(item.digest)
                found.append(item)
        if len(found) == count:
            return found
    raise LocalError(f"expected {count} new calibration items, found {len(found)}: name more families of questions")


def order(count: int, draw: random.Random) -> list[Asked]:
    """Every item in both orders, mixed, so that nothing tells the two from each other."""
    asked = [Asked(item, right_first) for item in range(count) for right_first in (True, False)]
    draw.shuffle(asked)
    return asked


def mark(asked: Sequence[Asked], for_first: Sequence[float]) -> Mark:
    """`for_first`: what the judge said each time, 1 (A) to 0 (B); 0.5 is never right."""
    right: dict[int, list[bool]] = {}
    chose_first: dict[int, list[bool]] = {}
    for question, said in zip(asked, for_first, strict=True):
        right.setdefault(question.item, []).append(said > 0.5 if question.right_first else said < 0.5)
        chose_first.setdefault(question.item, []).append(said > 0.5)
    turned = sum(len(set(chosen)) == 1 for chosen in chose_first.values() if len(chosen) == 2)
    return Mark(sum(len(both) == 2 and all(both) for both in right.values()), len(right), turned)


def passes(p: float, rules: Rules = Rules()) -> float:
    """Chance that a judge passes whose items are right, independently, with chance p: the binomial's tail."""
    return sum(comb(rules.items, k) * p**k * (1 - p) ** (rules.items - k) for k in range(rules.needed, rules.items + 1))
