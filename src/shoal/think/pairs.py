"""Which answers are compared: a chain and a half-offset, each in both orders, about 3N comparisons a judge.

The adjacent chain makes the graph of comparisons connected, so that a ranking exists; the half-offset keeps every two
answers within a few steps of each other. (Fortytwo, arXiv 2510.24801; its client's schedule.)
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """Answer `first` is shown as A, `second` as B; numbers of answers."""

    first: int
    second: int


def swarm_pairs(count: int) -> tuple[Pair, ...]:
    """2(n-1) + 2*floor(n/2) ordered pairs, without repeats; nothing for fewer than two answers. n = 2 gives 2."""
    chain = [(i, i + 1) for i in range(count - 1)]
    half = count // 2
    across = [(i, i + half) for i in range(half)] if half > 1 else []
    return tuple(pair for a, b in dict.fromkeys(chain + across) for pair in (Pair(a, b), Pair(b, a)))


def all_pairs(count: int) -> tuple[Pair, ...]:
    """The full round robin, both orders: n(n-1)."""
    return tuple(Pair(a, b) for a in range(count) for b in range(count) if a != b)


def shuffled(count: int, seed: int, judge: int) -> tuple[int, ...]:
    """The order in which `judge` sees the answers, so that no author has a place of his own. Reproducible by seed."""
    order = list(range(count))
    random.Random(f"{seed}/{judge}").shuffle(order)  # noqa: S311 - published with the ballot, no secret
    return tuple(order)


def judged_pairs(count: int, seed: int, judge: int) -> tuple[Pair, ...]:
    """`swarm_pairs` over that judge's own order of the answers."""
    order = shuffled(count, seed, judge)
    return tuple(Pair(order[pair.first], order[pair.second]) for pair in swarm_pairs(count))
