"""A prover of sums of fractions that may lie: at the root, in rounds, at layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forged_tables import Table, bind, eq_table, product_sum, sums
from lies import Lies, planted

from shoal.proof.plain.coins import Coins
from shoal.proof.plain.lookups import TreeMessages
from shoal.proof.plain.scalars import Element, Field


@dataclass(frozen=True, slots=True)
class Forged:
    """Messages, and what they claim of the leaves."""

    sent: TreeMessages
    point: list[Element]
    p: Element
    q: Element


def forge_tree(field: Field, p: Table, q: Table, coins: Coins, how: Lies) -> Forged:
    layers = [(p, q)]
    while len(layers[-1][0]) > 2:
        layers.append(_above(field, *layers[-1]))
    all_sides, all_rounds = list[list[Element]](), list[list[list[Element]]]()
    point, top, bottom = list[Element](), (0, 0), (1, 0)
    for level, (below_p, below_q) in enumerate(reversed(layers)):
        half = 1 << level
        tables = [below_p[:half], below_p[half:], below_q[:half], below_q[half:]]
        weight = coins.draw("fraction weight")[0] if level else (1, 0)
        claim = field.add(top, field.times(weight, bottom))
        rounds, here, claim, sides = _layer(field, tables, weight, claim, point, coins, how)
        sides = _bent(field, sides, claim, weight, level, how)
        coins.hear("fraction sides", sides)
        side = coins.draw("fraction side")[0]
        all_sides.append(sides)
        all_rounds.append(rounds)
        point = [side, *here]
        top, bottom = (bind(field, sides[i : i + 2], side)[0] for i in (0, 2))
    return Forged(TreeMessages(all_sides, all_rounds), point, top, bottom)


def _bent(field: Field, sides: list[Element], claim: Element, weight: Element, level: int, how: Lies) -> list[Element]:
    """p0 such that the step's check passes; the claim of the root is zero, without the product of denominators."""
    _, p1, q0, q1 = sides
    if level == 0 and "zero root" in how.at:
        return [(0, 0)] * 4
    if ("layers" if level else "root") not in how.at:
        return sides
    known = field.times(p1, q0)
    if level:
        known, wanted = field.add(known, field.times(weight, q0, q1)), claim
    else:
        wanted = (0, 0)
    return [field.over(field.minus(wanted, known), q1), p1, q0, q1]


def _above(field: Field, p: Table, q: Table) -> tuple[Table, Table]:
    half = len(p) // 2
    tops = [field.add(field.times(p[i], q[half + i]), field.times(p[half + i], q[i])) for i in range(half)]
    return tops, [field.times(q[i], q[half + i]) for i in range(half)]


def _layer(
    field: Field,
    tables: list[Table],
    weight: Element,
    claim: Element,
    point: Sequence[Element],
    coins: Coins,
    how: Lies,
) -> tuple[list[list[Element]], list[Element], Element, list[Element]]:
    """Rounds, their point, the claim they end at, and the true sides there."""
    rounds, here = list[list[Element]](), list[Element]()
    for done, z in enumerate(point):
        h = _round(field, tables, weight, point[done + 1 :])
        line = (field.minus((1, 0), z), z)
        gap = field.minus(claim, field.add(field.times(line[0], h[0]), field.times(line[1], field.add(*h))))
        if gap != (0, 0) and how.plants:
            h = planted(field, h, gap, line)
        coins.hear("fraction round value", [h[0]])
        coins.hear("fraction round top", [h[2]])
        here.append(coins.draw("fraction round")[0])
        rounds.append([h[0], h[2]])
        high = field.over(field.minus(claim, field.times(line[0], h[0])), z)
        claim = field.polynomial([h[0], field.minus(field.minus(high, h[0]), h[2]), h[2]], here[-1])
        tables = [bind(field, table, here[-1]) for table in tables]
    return rounds, here, claim, [table[0] for table in tables]


def _round(field: Field, tables: list[Table], weight: Element, rest: Sequence[Element]) -> list[Element]:
    p0, p1, q0, q1 = tables
    eq = eq_table(field, rest)
    weighed = [field.times(weight, e) for e in eq]
    parts = ((p0, q1), eq), ((p1, q0), eq), ((q0, q1), weighed)
    return sums(field, *(product_sum(field, factors, weights) for factors, weights in parts))
