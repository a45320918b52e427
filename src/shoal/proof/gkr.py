"""A sum of fractions is zero: GKR over a binary tree of fractions (logUp-GKR, eprint 2023/1284).

From the root down, a claim p(z), q(z) on a layer becomes, with a random weight for q, one sumcheck of
sum over x of eq(z, x) (p0 q1 + p1 q0 + weight q0 q1)(x), whose end asks for p0, p1, q0, q1 at one point; a random value
of the first variable makes those two claims one. Rounds leave the eq factor out (rounds.py): each sends two elements.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.crypto.transcript import Transcript
from shoal.proof import field
from shoal.proof.field import Ext
from shoal.proof.fractions import Layer, halves, layer_above
from shoal.proof.rejected import ProofRejected
from shoal.proof.rounds import next_eq_claim
from shoal.proof.scalars import ONE, ZERO, Element, add, mul, sub

Sides = tuple[Element, Element, Element, Element]
"""p0, p1, q0, q1."""


@dataclass(frozen=True, slots=True)
class FractionMessages:
    """For n levels: sides (n, 4, 2), root first, and rounds (n (n - 1) / 2, 2, 2), h(0) and leading coefficient."""

    sides: Ext
    rounds: Ext


@dataclass(frozen=True, slots=True)
class LeafClaim:
    """The multilinear extensions of all numerators and of all denominators at a point."""

    point: Ext
    p: Element
    q: Element


def prove_fractions(leaves: Layer, levels: int, transcript: Transcript) -> tuple[FractionMessages, LeafClaim]:
    """The messages for leaves that sum up to zero; uses the leaves up. More than 2^(levels - 1) leaves, levels >= 1."""
    layers = [leaves]
    for level in range(levels - 1, 0, -1):
        layers.append(layer_above(layers[-1], 1 << level))
    sides, rounds, point = list[Sides](), list[Element](), list[Element]()
    for level in range(levels):
        layer = layers.pop()
        weight = transcript.challenge("fraction weight") if level else ONE
        found, messages, point = _prove_layer(layer, weight, point, transcript)
        sides.append(found)
        rounds += messages
        point = [_absorb_sides(found, transcript), *point]
    p, q = _joined(sides[-1], point[0])
    sent = FractionMessages(field.ext(e for four in sides for e in four).reshape(-1, 4, 2), _pairs(rounds))
    return sent, LeafClaim(field.ext(point), p, q)


def verify_fractions(sent: FractionMessages, transcript: Transcript) -> LeafClaim:
    """The claim that is left on the leaves. Raises ProofRejected."""
    point, claim, at = list[Element](), (ZERO, ONE), 0
    for level, row in enumerate(sent.sides):
        weight = transcript.challenge("fraction weight") if level else ONE
        messages = sent.rounds[at : at + level]
        at += level
        target, point = _replay(add(claim[0], mul(weight, claim[1])), messages, point, transcript)
        p0, p1, q0, q1 = sides = _sides(row)
        if level:
            check_layer(target, sides, weight)
        else:
            check_root_numerator(add(mul(p0, q1), mul(p1, q0)))
            check_root_denominator(mul(q0, q1))
        point = [_absorb_sides(sides, transcript), *point]
        claim = _joined(sides, point[0])
    return LeafClaim(field.ext(point), *claim)


def check_root_numerator(value: Element) -> None:
    if value != ZERO:
        raise ProofRejected("lookup sum", "expected the sum of all lookups' fractions to be zero, found another")


def check_root_denominator(value: Element) -> None:
    if value == ZERO:
        raise ProofRejected("lookup denominators", "expected a product of denominators that is not zero, found zero")


def check_layer(target: Element, sides: Sides, weight: Element) -> None:
    """The sumcheck's last claim is what the two children make."""
    p0, p1, q0, q1 = sides
    made = add(add(mul(p0, q1), mul(p1, q0)), mul(weight, mul(q0, q1)))
    if made != target:
        raise ProofRejected("lookup layer", "expected the children's fractions to add up to the layer's claim")


def check_challenge(z: Element) -> None:
    """A round divides by its coordinate; zero comes up once in 2^128, and then the round would say nothing."""
    if z == ZERO:
        raise ProofRejected("lookup challenge", "expected a coordinate that is not zero; prove again")


def _prove_layer(
    layer: Layer, weight: Element, point: list[Element], transcript: Transcript
) -> tuple[Sides, list[Element], list[Element]]:
    """One sumcheck over the coordinates of `point`: its end, its messages, and the point it ends at."""
    run, z = halves(layer, 1 << len(point), weight), field.ext(point)
    rounds, here = list[Element](), list[Element]()
    for done in range(len(point)):
        half = 1 << (len(point) - 1 - done)
        h0, top = run.sums(half, z[done + 1 :])
        rounds += [h0, top]
        here.append(_absorb_round(h0, top, transcript))
        run.fold(half, here[-1])
    return run.last(), rounds, here


def _replay(
    claim: Element, messages: Ext, point: list[Element], transcript: Transcript
) -> tuple[Element, list[Element]]:
    """The claim after a layer's rounds, and the point they end at."""
    here = list[Element]()
    for z, message in zip(point, messages, strict=True):
        check_challenge(z)
        h0, top = field.elements(message)
        here.append(_absorb_round(h0, top, transcript))
        claim = next_eq_claim(claim, h0, top, z, here[-1])
    return claim, here


def _absorb_round(h0: Element, top: Element, transcript: Transcript) -> Element:
    transcript.absorb_pair("fraction round value", h0)
    transcript.absorb_pair("fraction round top", top)
    return transcript.challenge("fraction round")


def _absorb_sides(sides: Sides, transcript: Transcript) -> Element:
    transcript.absorb_elements("fraction sides", field.ext(sides))
    return transcript.challenge("fraction side")


def _joined(sides: Sides, r: Element) -> tuple[Element, Element]:
    """p and q at first coordinate r."""
    p0, p1, q0, q1 = sides
    return add(p0, mul(r, sub(p1, p0))), add(q0, mul(r, sub(q1, q0)))


def _sides(row: Ext) -> Sides:
    p0, p1, q0, q1 = field.elements(row)
    return p0, p1, q0, q1


def _pairs(elements: list[Element]) -> Ext:
    return field.ext(elements).reshape(-1, 2, 2)
