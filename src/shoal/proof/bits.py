"""How sound a proof is, counted from its real shape: the probability that a false statement passes, term by term.

proven: theorems only. conjectured: the same, but for queries counted as good as Reed-Solomon codes are conjectured to
allow. Interactive soundness: Fiat and Shamir's transform lets a cheat try again, so log2 of the hashes it can afford is
to be taken off; grinding is not counted. |F| = p^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shoal.proof import identities, logup
from shoal.proof.circuit import Circuit
from shoal.proof.parameters import FIELD_BITS, Parameters


@dataclass(frozen=True, slots=True)
class Errors:
    """Name of each term and -log2 of its probability, (proven, conjectured)."""

    terms: tuple[tuple[str, float, float], ...]

    @property
    def proven(self) -> float:
        return _joined([proven for _, proven, _ in self.terms])

    @property
    def conjectured(self) -> float:
        return _joined([conjectured for _, _, conjectured in self.terms])


def errors(circuit: Circuit, commitments: Sequence[Parameters]) -> Errors:
    degrees = {
        "lookups: sum of fractions": num_leaves(circuit),
        "lookups: layers": _layers(circuit),
        "identities: point and weight": identities.num_point_variables(circuit) + max(len(circuit.identities) - 1, 0),
        "identities: sumcheck": 3 * identities.num_rounds(circuit),
        "openings: combined claims": 2 + 2 * sum(len(identity.pairs) for identity in circuit.identities),
        "openings: sumcheck": sum(2 * params.bits for params in commitments),
    }
    terms = [(name, _of_degree(degree), _of_degree(degree)) for name, degree in degrees.items() if degree]
    for params in commitments:
        terms.append(("commitment: combination of rows", params.combination_bits, params.combination_bits))
        terms.append(("commitment: queries", params.missed_bits, max(params.missed_bits, params.conjectured_bits)))
    return Errors(tuple(terms))


def num_leaves(circuit: Circuit) -> int:
    """Lookups and table rows: the degree of the sum of fractions in (alpha, beta), over a common denominator."""
    return logup.leaf_layout(circuit).length if circuit.lookups else 0


def num_levels(circuit: Circuit) -> int:
    """Of the tree of fractions; 0 without lookups."""
    return max(num_leaves(circuit) - 1, 0).bit_length()


def _layers(circuit: Circuit) -> int:
    """For each layer of k variables: k rounds of degree two, the weight of q, the choice of a child."""
    return sum(2 * level + 2 for level in range(num_levels(circuit)))


def _of_degree(degree: int) -> float:
    return FIELD_BITS - math.log2(degree)


def _joined(terms: Sequence[float]) -> float:
    """-log2 of the sum of 2^-term."""
    finite = [term for term in terms if term != math.inf]
    if not finite:
        return math.inf
    least = min(finite)
    return least - math.log2(sum(2.0 ** (least - term) for term in finite))
