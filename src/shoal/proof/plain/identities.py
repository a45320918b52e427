"""Identities: one batched sumcheck, checked from the definition of what it sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.proof.circuit import Circuit, Expr, Identity
from shoal.proof.plain.coins import Coins
from shoal.proof.plain.forms import Form, Numbers, mentioned
from shoal.proof.plain.lookups import Claims
from shoal.proof.plain.places import indices
from shoal.proof.plain.scalars import Element, Field
from shoal.proof.rejected import ProofRejected

Points = dict[int, list[Element]]
"""Axis -> its coordinates."""


@dataclass(frozen=True, slots=True)
class SumMessages:
    """output: of all identities, weighed. rounds: coefficients 0, 2 and 3. factors: a and b of every product."""

    output: Element
    rounds: list[list[Element]]
    factors: list[list[Element]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """z: a point for all spaces. gamma: the identities' weight. r: the point at which the sumcheck ended."""

    z: Sequence[Element]
    gamma: Element
    r: Sequence[Element]


def axis_bits(length: int) -> int:
    return (length - 1).bit_length()


def num_coordinates(circuit: Circuit) -> int:
    return max((sum(map(axis_bits, identity.space)) for identity in circuit.identities), default=0)


def shared_axes(identity: Identity, a: Expr, b: Expr) -> list[int]:
    """Variables of a product: axes that both factors depend on, summed ones first."""
    both, free = mentioned(a) & mentioned(b), len(identity.space)
    return [axis for axis in sorted(both) if axis >= free] + [axis for axis in sorted(both) if axis < free]


def num_rounds(circuit: Circuit) -> int:
    found = 0
    for identity in circuit.identities:
        lengths = identity.space + identity.summed
        for a, b in identity.pairs:
            found = max(found, sum(axis_bits(lengths[axis]) for axis in shared_axes(identity, a, b)))
    return found


def verify_identities(circuit: Circuit, numbers: Numbers, sent: SumMessages, coins: Coins) -> Claims:
    """The claims on sources that are left. Raises ProofRejected."""
    z = coins.draw("identity point", num_coordinates(circuit))
    gamma = coins.draw("identity weight")[0]
    coins.hear("identity output", [sent.output])
    claim, r = _rounds(numbers.field, sent, coins)
    coins.hear("identity factors", [value for pair in sent.factors for value in pair])
    drawn = Drawn(z, gamma, r)
    if last_claim(circuit, numbers.field, sent, drawn) != claim:
        raise ProofRejected("plain factors", "expected factors whose products make the sumcheck's last claim")
    return identity_claims(circuit, numbers, sent, drawn)


def last_claim(circuit: Circuit, field: Field, sent: SumMessages, drawn: Drawn) -> Element:
    """sum of gamma^c * scale * a * b over all products."""
    total, rest = (0, 0), list(sent.factors)
    for number, identity in enumerate(circuit.identities):
        for pair in identity.pairs:
            scale = field.times(field.power(drawn.gamma, number), scale_of(field, identity, pair, drawn))
            total = field.add(total, field.times(scale, *rest.pop(0)))
    return total


def identity_claims(circuit: Circuit, numbers: Numbers, sent: SumMessages, drawn: Drawn) -> Claims:
    """One claim on all outputs, two on the factors of each product."""
    outputs, claims, rest = Form(), Claims(), list(sent.factors)
    for number, identity in enumerate(circuit.identities):
        _add_output(outputs, numbers, identity, numbers.field.power(drawn.gamma, number), drawn.z)
        for pair in identity.pairs:
            points = _points(identity, pair, drawn)
            for factor, value in zip(pair, rest.pop(0), strict=True):
                claims.append((factor_form(numbers, identity, factor, points), value))
    return [(outputs, sent.output), *claims]


def scale_of(field: Field, identity: Identity, pair: tuple[Expr, Expr], drawn: Drawn) -> Element:
    """What a * b is multiplied by at the end: eq on the shared axes of the space, sums over axes that neither factor
    depends on, and one half for every round before the product's own."""
    lengths, shared = identity.space + identity.summed, shared_axes(identity, *pair)
    first = len(drawn.r) - _bits(lengths, shared)
    own, space = _cut(drawn.r[first:], shared, lengths), space_points(identity, drawn.z)
    result = field.power(field.over((1, 0), (2, 0)), first)
    for axis, length in enumerate(lengths):
        if axis in shared and axis in space:
            result = field.times(result, field.eq_points(space[axis], own[axis]))
        elif axis not in mentioned(pair[0]) | mentioned(pair[1]):
            each = [field.eq(space[axis], i) if axis in space else (1, 0) for i in range(length)]
            result = field.times(result, field.add(*each))
    return result


def factor_form(numbers: Numbers, identity: Identity, factor: Expr, points: Points) -> Form:
    """A factor, summed over the axes it depends on: with eq where an axis has a point, else plainly."""
    form, lengths, own = Form(), identity.space + identity.summed, sorted(mentioned(factor))
    for index in indices([lengths[axis] for axis in own]):
        at = dict(zip(own, index, strict=True))
        weights = [numbers.field.eq(points[axis], i) for axis, i in at.items() if axis in points]
        numbers.add(form, factor, at, numbers.field.times(*weights))
    return form


def _add_output(form: Form, numbers: Numbers, identity: Identity, weight: Element, z: Sequence[Element]) -> None:
    points = space_points(identity, z)
    for index in indices(identity.space):
        eq = [numbers.field.eq(points[axis], i) for axis, i in enumerate(index)]
        numbers.add(form, identity.out, dict(enumerate(index)), numbers.field.times(weight, *eq))


def _rounds(field: Field, sent: SumMessages, coins: Coins) -> tuple[Element, list[Element]]:
    """A round's polynomial has degree three; its values at 0 and 1 sum up to the claim."""
    claim, found = sent.output, list[Element]()
    for message in sent.rounds:
        coins.hear("identity round", message)
        r = coins.draw("identity round")[0]
        c0, c2, c3 = message
        c1 = field.minus(claim, field.add(c0, c0, c2, c3))
        claim = field.polynomial([c0, c1, c2, c3], r)
        found.append(r)
    return claim, found


def _points(identity: Identity, pair: tuple[Expr, Expr], drawn: Drawn) -> Points:
    lengths, shared = identity.space + identity.summed, shared_axes(identity, *pair)
    own = drawn.r[len(drawn.r) - _bits(lengths, shared) :]
    return {**space_points(identity, drawn.z), **_cut(own, shared, lengths)}


def space_points(identity: Identity, z: Sequence[Element]) -> Points:
    return _cut(z, range(len(identity.space)), identity.space)


def _cut(point: Sequence[Element], axes: Sequence[int], lengths: Mapping[int, int] | Sequence[int]) -> Points:
    """Coordinates dealt out to axes, from the front."""
    found, rest = Points(), list(point)
    for axis in axes:
        found[axis], rest = rest[: axis_bits(lengths[axis])], rest[axis_bits(lengths[axis]) :]
    return found


def _bits(lengths: Sequence[int], axes: Sequence[int]) -> int:
    return sum(axis_bits(lengths[axis]) for axis in axes)
