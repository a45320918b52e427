"""Provers of the identities' sumcheck and of openings that may lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forged_tables import Table, bind, product_sum, sums
from lies import Lies, planted

from shoal.proof.circuit import Circuit, Expr, Identity
from shoal.proof.plain.coins import Coins
from shoal.proof.plain.forms import Form, Numbers, mentioned
from shoal.proof.plain.identities import (
    Drawn,
    SumMessages,
    axis_bits,
    identity_claims,
    last_claim,
    num_coordinates,
    num_rounds,
    scale_of,
    shared_axes,
    space_points,
)
from shoal.proof.plain.opening import VectorMessages
from shoal.proof.plain.places import indices
from shoal.proof.plain.scalars import Element, Field

ONE, ZERO = (1, 0), (0, 0)


@dataclass(frozen=True, slots=True)
class Rounds:
    """messages: the coefficients sent. claim: what they end at."""

    messages: list[list[Element]]
    point: list[Element]
    claim: Element
    last: list[list[Element]]


def sumcheck(
    field: Field, products: list[list[Table]], claim: Element, label: str, degree: int, coins: Coins, how: Lies
) -> Rounds:
    """Of the sum over all products of tables; sends all coefficients but the linear one."""
    messages, point = list[list[Element]](), list[Element]()
    rounds = (len(products[0][0]) - 1).bit_length() if products else 0
    for _ in range(rounds):
        true = sums(field, *(_padded(product_sum(field, tables), degree) for tables in products))
        gap = field.minus(claim, field.add(true[0], *true))
        if gap != ZERO and how.plants:
            true = planted(field, true, gap, (ONE, ONE))
        sent = [true[0], *true[2:]]
        coins.hear(label, sent)
        r = coins.draw(label)[0]
        linear = field.minus(claim, field.add(sent[0], *sent))
        claim = field.polynomial([sent[0], linear, *sent[1:]], r)
        products = [[bind(field, table, r) for table in tables] for tables in products]
        messages.append(sent)
        point.append(r)
    return Rounds(messages, point, claim, [[table[0] for table in tables] for tables in products])


def forge_identities(circuit: Circuit, used: Numbers, coins: Coins, how: Lies) -> tuple[SumMessages, Drawn]:
    field = used.field
    z = coins.draw("identity point", num_coordinates(circuit))
    gamma = coins.draw("identity weight")[0]
    products = [
        _tables(used, identity, pair, Drawn(z, field.power(gamma, number), []), num_rounds(circuit))
        for number, identity in enumerate(circuit.identities)
        for pair in identity.pairs
    ]
    none = SumMessages(ZERO, [], [[ZERO, ZERO]] * len(products))
    outputs, _ = identity_claims(circuit, used, none, Drawn(z, gamma, [ZERO] * num_rounds(circuit)))[0]
    output = outputs.known
    if "output" in how.at:
        output = field.add(ZERO, *(e for tables in products for e in _whole(field, tables)))
    coins.hear("identity output", [output])
    found = sumcheck(field, products, output, "identity round", 3, coins, how)
    drawn = Drawn(z, gamma, found.point)
    sent = SumMessages(output, found.messages, [last[1:] for last in found.last])
    if "factors" in how.at:
        sent = _bent(circuit, field, sent, drawn, found.claim)
    if "modulus" in how.at:
        sent = SumMessages(sent.output, sent.rounds, [[(a, b or field.p) for a, b in pair] for pair in sent.factors])
    coins.hear("identity factors", [value for pair in sent.factors for value in pair])
    return sent, drawn


def forge_opening(
    field: Field, line: Mapping[int, Element], vector: Table, share: Element, coins: Coins, how: Lies
) -> tuple[VectorMessages, list[Element]]:
    """For sum of line * vector = share; the vector's length is a power of two."""
    coefficients = [line.get(at, ZERO) for at in range(len(vector))]
    found = sumcheck(field, [[coefficients, vector]], share, "opening round", 2, coins, how)
    at_point, value = found.last[0]
    if "value" in how.at:
        value = field.over(found.claim, at_point)
    coins.hear("opening value", [value])
    return VectorMessages(share, found.messages, value), found.point


def _bent(circuit: Circuit, field: Field, sent: SumMessages, drawn: Drawn, claim: Element) -> SumMessages:
    """One factor such that the products make the claim."""
    gap = field.minus(claim, last_claim(circuit, field, sent, drawn))
    for number, (a, b) in enumerate(sent.factors):
        only = [[ZERO, ZERO] if i != number else [ONE, b] for i in range(len(sent.factors))]
        reach = last_claim(circuit, field, SumMessages(ZERO, [], only), drawn)
        if reach != ZERO:
            bent = [*sent.factors]
            bent[number] = [field.add(a, field.over(gap, reach)), b]
            return SumMessages(sent.output, sent.rounds, bent)
    return sent


def _tables(used: Numbers, identity: Identity, pair: tuple[Expr, Expr], drawn: Drawn, rounds: int) -> list[Table]:
    """eq with all weights, a and b over `rounds` variables: the same along those that are not the product's."""
    field, lengths, shared = used.field, identity.space + identity.summed, shared_axes(identity, *pair)
    points, sizes = space_points(identity, drawn.z), [axis_bits(lengths[axis]) for axis in shared]
    a, b = (_table(used, identity, factor, shared, points) for factor in pair)
    corners = indices([1 << bits for bits in sizes])
    flat = [[(bit, 0) for bit in _bits(corner, sizes)] for corner in corners]
    extra = rounds - sum(sizes)
    eq = [
        field.times(drawn.gamma, scale_of(field, identity, pair, Drawn(drawn.z, ONE, [*[ZERO] * extra, *corner])))
        for corner in flat
    ]
    return [table * (1 << extra) for table in (eq, a, b)]


def _table(
    used: Numbers, identity: Identity, factor: Expr, shared: list[int], points: dict[int, list[Element]]
) -> Table:
    """The factor over the shared axes, zero beyond their lengths; its other axes are summed up."""
    field, lengths = used.field, identity.space + identity.summed
    rest, found = sorted(mentioned(factor) - set(shared)), Table()
    for here in indices([1 << axis_bits(lengths[axis]) for axis in shared]):
        form, at = Form(), dict(zip(shared, here, strict=True))
        if all(i < lengths[axis] for axis, i in at.items()):
            for more in indices([lengths[axis] for axis in rest]):
                own = dict(zip(rest, more, strict=True))
                weights = [field.eq(points[axis], i) for axis, i in own.items() if axis in points]
                used.add(form, factor, {**at, **own}, field.times(*weights))
        found.append(form.known)
    return found


def _bits(corner: Sequence[int], sizes: Sequence[int]) -> list[int]:
    return [value >> (size - 1 - i) & 1 for value, size in zip(corner, sizes, strict=True) for i in range(size)]


def _whole(field: Field, tables: list[Table]) -> Table:
    return [field.times(*entries) for entries in zip(*tables, strict=True)]


def _padded(polynomial: list[Element], degree: int) -> list[Element]:
    return polynomial + [ZERO] * (degree + 1 - len(polynomial))
