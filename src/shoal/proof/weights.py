"""Weights bound to every proof: as numbers the verifier has, or as a commitment made once."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.errors import InvalidRequest
from shoal.proof import ligero
from shoal.proof.bounds import check_declared
from shoal.proof.circuit import Circuit
from shoal.proof.layout import pack
from shoal.proof.ligero import Commitment
from shoal.proof.plan import weight_store
from shoal.proof.statement import Numbers, numbers_of


@dataclass(frozen=True, slots=True)
class CommittedWeights:
    """What the prover keeps of a model's commitment; `root` is what verifiers know."""

    commitment: Commitment

    @property
    def root(self) -> bytes:
        return self.commitment.root


def commit_weights(circuit: Circuit, weights: Numbers) -> CommittedWeights:
    """Commits to all weights of a circuit. Raises InvalidRequest for numbers that do not fit it or its bounds."""
    numbers, store = numbers_of(circuit, "weight", weights), weight_store(circuit)
    check_declared(circuit, numbers)
    if store is None:
        raise InvalidRequest("circuit: expected weights to commit to, found none", "circuit")
    vector = pack(store.packed.plan, [numbers[name] for name in store.packed.names])
    return CommittedWeights(ligero.commit(vector, store.params))
