"""The verifier's side of the batched identity sumcheck: identities become claims on sources at random points."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.crypto.transcript import Transcript
from shoal.proof import field, identities, multilinear
from shoal.proof.circuit import Circuit
from shoal.proof.claims import Claim, Point, Shapes, add_expr
from shoal.proof.field import Ext
from shoal.proof.rejected import ProofRejected
from shoal.proof.rounds import next_claim
from shoal.proof.scalars import ONE, ZERO, Element, add, mul


@dataclass(frozen=True, slots=True)
class IdentityMessages:
    """output: the combined outputs. rounds (n, 3, 2): coefficients but the linear one. factors (products, 2, 2)."""

    output: Element
    rounds: Ext
    factors: Ext


@dataclass(frozen=True, slots=True)
class Challenges:
    """point: coordinates shared by all spaces. weight: gamma."""

    point: Ext
    weight: Element


def draw(circuit: Circuit, transcript: Transcript) -> Challenges:
    point = transcript.challenges("identity point", identities.num_point_variables(circuit))
    return Challenges(point, transcript.challenge("identity weight"))


def verify_identities(circuit: Circuit, shapes: Shapes, sent: IdentityMessages, transcript: Transcript) -> list[Claim]:
    """The linear claims that are left. Raises ProofRejected."""
    challenges = draw(circuit, transcript)
    transcript.absorb_pair("identity output", sent.output)
    claim, point = _replay(sent, transcript)
    transcript.absorb_elements("identity factors", sent.factors)
    check_identity_factors(claim, expected(circuit, challenges, sent, point))
    return claims_at(circuit, shapes, challenges, sent, point)


def check_identity_factors(claim: Element, value: Element) -> None:
    """The sumcheck's last claim is what the factors make."""
    if claim != value:
        raise ProofRejected("identity factors", "expected the factors' products to equal the sumcheck's last claim")


def expected(circuit: Circuit, challenges: Challenges, sent: IdentityMessages, point: Ext) -> Element:
    """sum of weight * eq(z, r) * a * b over all products."""
    total, at, factors = ZERO, 0, sent.factors.tolist()
    for identity, weight in zip(circuit.identities, weights_of(circuit, challenges), strict=True):
        vectors = identities.space_vectors(identity, challenges.point)
        z = identities.axis_points(identity.space, challenges.point)
        for product in identities.products(identity):
            value = mul(weight, identities.outside_factor(product, vectors))
            value = identities.halved(value, len(point) - product.num_variables)
            for axis, r in identities.split_point(product, point).items():
                if axis in z:
                    value = mul(value, multilinear.eq(field.elements(z[axis]), field.elements(r)))
            a, b = factors[at]
            total, at = add(total, mul(value, mul((a[0], a[1]), (b[0], b[1])))), at + 1
    return total


def claims_at(
    circuit: Circuit, shapes: Shapes, challenges: Challenges, sent: IdentityMessages, point: Ext
) -> list[Claim]:
    """One claim on all outputs, two on each product's factors."""
    outputs = Claim(sent.output)
    claims, at = [outputs], 0
    for identity, weight in zip(circuit.identities, weights_of(circuit, challenges), strict=True):
        vectors = identities.space_vectors(identity, challenges.point)
        own = mul(weight, identities.output_factor(identity, vectors))
        add_expr(outputs, identity.out, own, Point(vectors, identity.space, shapes))
        for product in identities.products(identity):
            shared = {axis: product.lengths[axis] for axis in product.keep}
            here = {**vectors, **identities.eq_vectors(shared, identities.split_point(product, point))}
            place = Point(here, product.lengths, shapes)
            for factor, value in zip((product.a, product.b), sent.factors[at], strict=True):
                claims.append(Claim(field.element(value)))
                add_expr(claims[-1], factor, ONE, place)
            at += 1
    return claims


def weights_of(circuit: Circuit, challenges: Challenges) -> list[Element]:
    """gamma^c for each identity."""
    found, power = [], ONE
    for _ in circuit.identities:
        found.append(power)
        power = mul(power, challenges.weight)
    return found


def _replay(sent: IdentityMessages, transcript: Transcript) -> tuple[Element, Ext]:
    claim, point = sent.output, list[Element]()
    for message in sent.rounds:
        transcript.absorb_elements("identity round", message)
        point.append(transcript.challenge("identity round"))
        claim = next_claim(claim, field.elements(message), point[-1])
    return claim, field.ext(point)
