"""What both sides derive from the circuit alone: where committed numbers lie, and the commitments' parameters.

Nothing of it is taken from a proof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shoal.core.errors import InvalidRequest
from shoal.proof import bits, logup
from shoal.proof.circuit import Circuit, Source
from shoal.proof.layout import layout
from shoal.proof.opening import Packed
from shoal.proof.parameters import Parameters, choose_params

GOAL_BITS = 100
"""Proven bits a proof has to reach, all errors summed."""

WEIGHT_BITS = 103
"""Bits of a weight commitment's queries, chosen once for every proof that opens it."""


@dataclass(frozen=True, slots=True)
class Store:
    """One commitment: what is in it and its parameters."""

    packed: Packed
    params: Parameters


@dataclass(frozen=True, slots=True)
class Plan:
    """witness, weights: None where nothing is committed of that kind."""

    witness: Store | None
    weights: Store | None
    errors: bits.Errors

    @property
    def stores(self) -> tuple[Store, ...]:
        return tuple(store for store in (self.witness, self.weights) if store is not None)


def make_plan(circuit: Circuit, commits_weights: bool) -> Plan:
    """Raises InvalidRequest where the circuit is too large for the goal."""
    weights = weight_store(circuit) if commits_weights else None
    packed = _packed([s for s in circuit.sources if s.kind == "witness"] + list(logup.multiplicity_sources(circuit)))
    if not packed.plan.length:
        return _checked(Plan(None, weights, bits.errors(circuit, [weights.params] if weights else [])))
    wish = float(GOAL_BITS) + 0.5
    while wish < GOAL_BITS + 24:
        params = choose_params(packed.plan.length, wish)
        errors = bits.errors(circuit, [params] + ([weights.params] if weights else []))
        if errors.proven >= GOAL_BITS:
            break
        wish += 0.5
    return _checked(Plan(Store(packed, params), weights, errors))


def weight_store(circuit: Circuit) -> Store | None:
    packed = _packed([source for source in circuit.sources if source.kind == "weight"])
    return Store(packed, choose_params(packed.plan.length, WEIGHT_BITS)) if packed.plan.length else None


def _packed(sources: list[Source]) -> Packed:
    return Packed(tuple(source.name for source in sources), layout([source.shape for source in sources]))


def _checked(plan: Plan) -> Plan:
    if plan.errors.proven < GOAL_BITS or math.isnan(plan.errors.proven):
        found = f"{plan.errors.proven:.1f} bits, {plan.errors}"
        raise InvalidRequest(f"circuit: expected at least {GOAL_BITS} proven bits, found {found}", "circuit")
    return plan
