"""The prover's side of the batched identity sumcheck: identities.py says of what, identity_verifier.py checks it."""

from __future__ import annotations

import numpy as np

from shoal.core.errors import InvalidRequest
from shoal.crypto.transcript import Transcript
from shoal.proof import field, identities
from shoal.proof.circuit import Circuit
from shoal.proof.claims import Claim, Shapes
from shoal.proof.culprit import first_fault
from shoal.proof.expressions import Values
from shoal.proof.field import Ext
from shoal.proof.fixed import Fixed, fix
from shoal.proof.identities import HALF, Product
from shoal.proof.identity_verifier import Challenges, IdentityMessages, claims_at, draw, weights_of
from shoal.proof.running import Running, eq_line, times_line
from shoal.proof.satisfy import unequal
from shoal.proof.scalars import ZERO, Element, add, mul, scale


def prove_identities(
    circuit: Circuit, shapes: Shapes, values: Values, transcript: Transcript
) -> tuple[IdentityMessages, list[Claim]]:
    """The messages, and the linear claims they leave open. Raises InvalidRequest where an identity does not hold."""
    challenges = draw(circuit, transcript)
    running, output = _start(circuit, shapes, values, challenges)
    transcript.absorb_pair("identity output", output)
    messages, point = _rounds(running, identities.num_rounds(circuit), transcript)
    finals = field.ext(part for item in running for part in (_only(item.a), _only(item.b))).reshape(-1, 2, 2)
    transcript.absorb_elements("identity factors", finals)
    sent = IdentityMessages(output, messages, finals)
    return sent, claims_at(circuit, shapes, challenges, sent, point)


def _start(circuit: Circuit, shapes: Shapes, values: Values, challenges: Challenges) -> tuple[list[Running], Element]:
    """The products before the first round, and the combined output."""
    running, output = list[Running](), ZERO
    for identity, weight in zip(circuit.identities, weights_of(circuit, challenges), strict=True):
        fixed = fix(identity, challenges.point, shapes, values)
        total = ZERO
        for product in identities.products(identity):
            factor = identities.outside_factor(product, fixed.vectors)
            running.append(_running(fixed, product, mul(weight, factor)))
            total = add(total, mul(running[-1].claim, factor))
        if fixed.output() != total:
            refuse_witness(fixed)
        output = add(output, mul(weight, total))
    return running, output


def refuse_witness(fixed: Fixed) -> None:
    """Raises InvalidRequest that names the first index at which an identity that does not hold fails."""
    fault = unequal(fixed.identity, first_fault(fixed), fixed.values)
    raise InvalidRequest(f"{fault}; the witness does not satisfy the circuit", "witness")


def _running(fixed: Fixed, product: Product, weight: Element) -> Running:
    a, b = (fixed.over(factor, product.keep) for factor in (product.a, product.b))
    lengths = [product.lengths[axis] for axis in product.keep]
    points: list[Ext | None] = [fixed.points.get(axis) for axis in product.keep]
    found = Running(np.ascontiguousarray(a), np.ascontiguousarray(b), lengths, [*product.bits], points, weight, ZERO)
    found.settle()
    found.sum_up()
    return found


def _rounds(running: list[Running], count: int, transcript: Transcript) -> tuple[Ext, Ext]:
    """Messages (rounds, 3, 2) and the point (rounds, 2)."""
    sent, point = list[list[Element]](), list[Element]()
    for left in range(count, 0, -1):
        total, polynomials = [ZERO] * 4, list[tuple[Running, list[Element]]]()
        for item in running:
            if item.num_variables < left:
                item.weight = scale(item.weight, HALF)
                total[0] = add(total[0], mul(item.weight, item.claim))
                continue
            h, z = item.polynomial(), item.current
            full = [*h, ZERO] if z is None else times_line(h, eq_line(z))
            total = [add(t, mul(item.weight, c)) for t, c in zip(total, full, strict=True)]
            polynomials.append((item, h))
        sent.append([total[0], total[2], total[3]])
        transcript.absorb_elements("identity round", field.ext(sent[-1]))
        point.append(transcript.challenge("identity round"))
        for item, h in polynomials:
            item.bind(h, point[-1])
    return field.ext(c for message in sent for c in message).reshape(-1, 3, 2), field.ext(point)


def _only(table: Ext) -> Element:
    return field.element(table.reshape(2))
