"""Claims on committed sources become one claim on the committed vector at one point.

The claims, combined, say <w, L> = value, where w is the packed vector and L holds the coefficients; a sumcheck over w L
ends at w(rho), which the commitment opens, and L(rho), which the verifier evaluates piece by piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.crypto.transcript import Transcript
from shoal.proof import axes, field, multilinear, native, products
from shoal.proof.claims import Claim, Term
from shoal.proof.contract import contract
from shoal.proof.field import Base, Ext
from shoal.proof.layout import Layout, Piece
from shoal.proof.rejected import ProofRejected
from shoal.proof.rounds import next_claim
from shoal.proof.scalars import ZERO, Element, add, mul


@dataclass(frozen=True, slots=True)
class OpeningMessages:
    """rounds (n, 2, 2): coefficients 0 and 2. value: the committed vector at the end."""

    rounds: Ext
    value: Element


@dataclass(frozen=True, slots=True)
class Packed:
    """Names of the sources in a commitment and where they lie."""

    names: tuple[str, ...]
    plan: Layout


def prove_opening(
    claim: Claim, packed: Packed, vector: Base, bits: int, transcript: Transcript
) -> tuple[OpeningMessages, Ext]:
    """The messages for a claim on `packed` alone, and the point. The vector's extension has `bits` variables."""
    values, line = products.base_or_ext(vector), products.base_or_ext(coefficients(claim, packed, len(vector)))
    rounds, point, left = list[Element](), list[Element](), claim.value
    for left_bits in range(bits, 0, -1):
        half = 1 << (left_bits - 1)
        h0, top = products.round_sums(values, line, half)
        point.append(_absorb_round(h0, top, transcript))
        rounds += [h0, top]
        left = next_claim(left, (h0, top), point[-1])
        values, line = products.fold_rows(values, half, point[-1]), products.fold_rows(line, half, point[-1])
    last = values[0, 0] if values.ndim == 3 else field.lift(values[0, 0])
    transcript.absorb_elements("opening value", last)
    return OpeningMessages(field.ext(rounds).reshape(-1, 2, 2), field.element(last)), field.ext(point)


def verify_opening(claim: Claim, packed: Packed, sent: OpeningMessages, transcript: Transcript) -> Ext:
    """The point at which the committed vector has to be `sent.value`. Raises ProofRejected."""
    left, point = claim.value, list[Element]()
    for message in sent.rounds:
        pair = field.elements(message)
        point.append(_absorb_round(pair[0], pair[1], transcript))
        left = next_claim(left, pair, point[-1])
    transcript.absorb_pair("opening value", sent.value)
    rho = field.ext(point)
    check_opening(left, mul(sent.value, coefficient_at(claim, packed, rho)))
    return rho


def check_opening(left: Element, made: Element) -> None:
    """The sumcheck's last claim is the committed value times its coefficient."""
    if left != made:
        raise ProofRejected("opening", "expected the committed vector's value to satisfy the combined claims")


def only(claim: Claim, share: Element, packed: Packed) -> Claim:
    """The part of a claim that is about one commitment's sources."""
    names = frozenset(packed.names)
    return Claim(share, ZERO, [term for term in claim.terms if term.source in names])


def value_of(claim: Claim, packed: Packed, vector: Base) -> Element:
    """<w, L>."""
    return field.dot_base(vector, coefficients(claim, packed, len(vector)))


def coefficients(claim: Claim, packed: Packed, length: int) -> Ext:
    """L: what each committed number is multiplied by, (length, 2)."""
    line, terms = np.zeros((length, 2), np.uint64), _by_source(claim.terms)
    for piece in packed.plan.pieces:
        for term in terms.get(packed.names[piece.tensor], ()):
            parts = [vector[cut] for vector, cut in zip(term.vectors, piece.slices, strict=True)]
            if not all(part.any() for part in parts):
                continue  # a lookup's piece, seen from another piece of its source
            rows = field.ext_mul(axes.outer(parts[:-1]), field.ext([term.coefficient]))
            _add_outer(
                line[piece.offset : piece.offset + (1 << piece.bits)], rows, parts[-1] if parts else axes.outer([])
            )
    return line


def coefficient_at(claim: Claim, packed: Packed, rho: Ext) -> Element:
    """The extension of L at rho."""
    terms = _by_source(claim.terms)
    stacks = {name: _stacked(group) for name, group in terms.items()}
    total = ZERO
    for piece in packed.plan.pieces:
        if (name := packed.names[piece.tensor]) in stacks:
            total = add(total, _piece_at(stacks[name], piece, rho))
    return total


def _by_source(terms: Sequence[Term]) -> Mapping[str, list[Term]]:
    found = dict[str, list[Term]]()
    for term in terms:
        found.setdefault(term.source, []).append(term)
    return found


def _stacked(terms: Sequence[Term]) -> tuple[Ext, list[Ext]]:
    """Coefficients (terms, 2), and for each axis the terms' vectors (terms, length, 2)."""
    return field.ext(term.coefficient for term in terms), [
        np.stack(group) for group in zip(*(t.vectors for t in terms), strict=True)
    ]


def _piece_at(stack: tuple[Ext, list[Ext]], piece: Piece, rho: Ext) -> Element:
    values, vectors = stack
    at = high = len(rho) - piece.bits
    for interval, group in zip(piece.box, vectors, strict=True):
        eq = multilinear.eq_table(rho[at : at + interval.bits])
        part = group[:, interval.start : interval.stop]
        values = field.ext_mul(values, contract(part[:, :, None], eq[:, None], is_ext=True).reshape(-1, 2))
        at += interval.bits
    here = piece.offset >> piece.bits
    bits = [(here >> (high - 1 - i) & 1, 0) for i in range(high)]
    return mul(multilinear.eq(field.elements(rho[:high]), bits), axes.total(values))


def _add_outer(out: Ext, rows: Ext, last: Ext) -> None:
    """out[i, j] += rows[i] * last[j], in place."""
    call = native.function("proof_add_outer", "ppqpq")
    if call is None:
        cube = out.reshape(len(rows), len(last), 2)
        cube[...] = field.add(cube, field.ext_mul(rows[:, None], last[None]))
        return
    rows, last = np.ascontiguousarray(rows), np.ascontiguousarray(last)
    call(native.pointer(out), native.pointer(rows), len(rows), native.pointer(last), len(last))


def _absorb_round(h0: Element, top: Element, transcript: Transcript) -> Element:
    transcript.absorb_elements("opening round", field.ext([h0, top]))
    return transcript.challenge("opening round")
