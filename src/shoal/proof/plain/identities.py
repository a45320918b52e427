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
    field = numbers.field
    z = coins.draw("identity point", num_coordinates(circuit))
    gamma = coins.draw("identity weight")[0]
    coins.hear("identity output", [sent.output])
    claim, r = _rounds(field, sent, coins)
    coins.hear("identity factors", [value for pair in sent.factors for value in pair])
    outputs, claims, total, at = Form(), Claims(), (0, 0), 0
    for number, identity in enumerate(circuit.identities):
        weight = field.power(gamma, number)
        _add_output(outputs, numbers, identity, weight, z)
        for a, b in identity.pairs:
            values = sent.factors[at]
            total = field.add(total, field.times(weight, scale_of(field, identity, (a, b), z, r), *values))
            points = _points(identity, (a, b), z, r)
            claims += [(factor_form(numbers, identity, f, points), v) for f, v in zip((a, b), values, strict=True)]
            at += 1
    if total != claim:
        raise ProofRejected("plain factors", "expected factors whose products make the sumcheck's last claim")
    return [(outputs, sent.output), *claims]


def scale_of(
    field: Field, identity: Identity, pair: tuple[Expr, Expr], z: Sequence[Element], r: Sequence[Element]
) -> Element:
    """What a * b is multiplied by at the end: eq on the shared axes of the space, sums over axes that neither factor
    depends on, and one half for every round before the product's own."""
    lengths, shared = identity.space + identity.summed, shared_axes(identity, *pair)
    own, space = _cut(r[len(r) - _bits(lengths, shared) :], shared, lengths), _space_points(identity, z)
    result = field.power(field.over((1, 0), (2, 0)), len(r) - _bits(lengths, shared))
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
    points = _space_points(identity, z)
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


def _points(identity: Identity, pair: tuple[Expr, Expr], z: Sequence[Element], r: Sequence[Element]) -> Points:
    lengths, shared = identity.space + identity.summed, shared_axes(identity, *pair)
    return {**_space_points(identity, z), **_cut(r[len(r) - _bits(lengths, shared) :], shared, lengths)}


def _space_points(identity: Identity, z: Sequence[Element]) -> Points:
    return _cut(z, range(len(identity.space)), identity.space)


def _cut(point: Sequence[Element], axes: Sequence[int], lengths: Mapping[int, int] | Sequence[int]) -> Points:
    """Coordinates dealt out to axes, from the front."""
    found, rest = Points(), list(point)
    for axis in axes:
        found[axis], rest = rest[: axis_bits(lengths[axis])], rest[axis_bits(lengths[axis]) :]
    return found


def _bits(lengths: Sequence[int], axes: Sequence[int]) -> int:
    return sum(axis_bits(lengths[axis]) for axis in axes)
