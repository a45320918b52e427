"""Lookups: the tree of fractions from its root to its leaves, and what the leaves' claims say of the sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.proof.circuit import Circuit
from shoal.proof.plain.coins import Coins
from shoal.proof.plain.forms import Form, Numbers
from shoal.proof.plain.places import Tensor, Tuple, indices, places
from shoal.proof.plain.scalars import Element, Field
from shoal.proof.rejected import ProofRejected

Claims = list[tuple[Form, Element]]


@dataclass(frozen=True, slots=True)
class TreeMessages:
    """For each level: p0, p1, q0, q1 of its two halves, and for each of its rounds h(0) and the leading coefficient."""

    sides: list[list[Element]]
    rounds: list[list[list[Element]]]


def counts_name(table: str) -> str:
    return f"multiplicity of {table}"


def leaf_shapes(circuit: Circuit) -> list[Tuple]:
    return [lookup.space for lookup in circuit.lookups] + [(len(table.columns[0]),) for table in circuit.tables]


def verify_lookups(circuit: Circuit, numbers: Numbers, sent: TreeMessages, coins: Coins) -> Claims:
    """The two claims on all leaves. Raises ProofRejected."""
    alpha = coins.draw("lookup alpha")[0]
    betas = coins.draw("lookup betas", max(len(table.columns) for table in circuit.tables))
    point, p, q = verify_tree(numbers.field, sent, coins)
    return list(zip(leaf_forms(circuit, numbers, alpha, betas, point), (p, q), strict=True))


def verify_tree(field: Field, sent: TreeMessages, coins: Coins) -> tuple[list[Element], Element, Element]:
    """Point, numerator and denominator claimed of leaves that sum up to zero. Raises ProofRejected."""
    point, p, q = list[Element](), (0, 0), (1, 0)
    for level, sides in enumerate(sent.sides):
        p0, p1, q0, q1 = sides
        top, bottom = field.add(field.times(p0, q1), field.times(p1, q0)), field.times(q0, q1)
        if level == 0:
            if top != (0, 0):
                raise ProofRejected("plain root", "expected fractions that sum up to zero")
            if bottom == (0, 0):
                raise ProofRejected("plain denominators", "expected denominators that are not zero")
            here = list[Element]()
        else:
            weight = coins.draw("fraction weight")[0]
            claim = field.add(p, field.times(weight, q))
            here, claim = _rounds(field, claim, point, sent.rounds[level], coins)
            if field.add(top, field.times(weight, bottom)) != claim:
                raise ProofRejected(
                    "plain layer", "expected children whose fractions add up to what was claimed of them"
                )
        coins.hear("fraction sides", sides)
        side = coins.draw("fraction side")[0]
        point, p, q = [side, *here], _between(field, p0, p1, side), _between(field, q0, q1, side)
    return point, p, q


def leaf_forms(
    circuit: Circuit, numbers: Numbers, alpha: Element, betas: Sequence[Element], point: Sequence[Element]
) -> tuple[Form, Form]:
    """What the leaves' numerators and denominators are at a point: leaf by leaf, missing ones are 0 / 1."""
    field, (p, q) = numbers.field, (Form(), Form())
    where, used = places(leaf_shapes(circuit))
    order = [table.name for table in circuit.tables]
    for lookup, at in zip(circuit.lookups, where, strict=False):
        tag = field.number(order.index(lookup.table))
        for index in indices(lookup.space):
            weight = field.eq(point, at[index])
            p.known = field.add(p.known, weight)
            q.known = field.add(q.known, field.times(weight, field.minus(alpha, tag)))
            for key, beta in zip(lookup.keys, betas, strict=False):
                down = field.minus((0, 0), field.times(weight, beta))
                numbers.add(q, key, dict(enumerate(index)), down)
    for number, table in enumerate(circuit.tables):
        columns, at = [Tensor.of(column).flat for column in table.columns], where[len(circuit.lookups) + number]
        for row in range(len(columns[0])):
            weight = field.eq(point, at[(row,)])
            p.of[(counts_name(table.name), row)] = field.minus((0, 0), weight)
            mix = [field.times(beta, field.number(column[row])) for column, beta in zip(columns, betas, strict=False)]
            found = field.minus(field.minus(alpha, field.number(number)), field.add(*mix))
            q.known = field.add(q.known, field.times(weight, found))
    for missing in range(used, 1 << len(point)):
        q.known = field.add(q.known, field.eq(point, missing))
    return p, q


def _rounds(
    field: Field, claim: Element, point: Sequence[Element], messages: list[list[Element]], coins: Coins
) -> tuple[list[Element], Element]:
    """Each round sends h(0) and the leading coefficient of h, of degree two; (1 - z) h(0) + z h(1) is the claim."""
    found = list[Element]()
    for z, (low, top) in zip(point, messages, strict=True):
        if z == (0, 0):
            raise ProofRejected("plain coordinate", "expected a coordinate that is not zero")
        coins.hear("fraction round value", [low])
        coins.hear("fraction round top", [top])
        r = coins.draw("fraction round")[0]
        high = field.over(field.minus(claim, field.times(field.minus((1, 0), z), low)), z)
        claim = field.polynomial([low, field.minus(field.minus(high, low), top), top], r)
        found.append(r)
    return found, claim


def _between(field: Field, low: Element, high: Element, at: Element) -> Element:
    return field.add(low, field.times(at, field.minus(high, low)))
