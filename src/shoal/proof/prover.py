"""Proves that numbers satisfy a circuit: commit, lookups, identities, opening; each step is a file of its own."""

from __future__ import annotations

from shoal.crypto.transcript import Transcript
from shoal.proof import bits, bounds, claims, ligero, logup, lookup_prover, opening, statement
from shoal.proof.circuit import Circuit
from shoal.proof.claims import Claim
from shoal.proof.field import Base
from shoal.proof.gkr import FractionMessages, prove_fractions
from shoal.proof.identity_prover import prove_identities
from shoal.proof.layout import pack
from shoal.proof.ligero import Commitment
from shoal.proof.plan import Plan, Store, make_plan
from shoal.proof.proofs import Opened, Proof, to_bytes
from shoal.proof.scalars import Element, sub
from shoal.proof.statement import Numbers
from shoal.proof.weights import CommittedWeights
from shoal.proof.wellformed import check_circuit


def prove(
    circuit: Circuit, weights: Numbers, public: Numbers, witness: Numbers, committed: CommittedWeights | None = None
) -> bytes:
    """A proof that verifiers check with the weights (committed: None) or with the root of `committed` alone.

    Raises InvalidRequest: for a circuit that means nothing, for numbers that do not fit it, and with the constraint's
    label and index for numbers that do not satisfy it.
    """
    check_circuit(circuit)
    model, known = statement.numbers_of(circuit, "weight", weights), statement.numbers_of(circuit, "public", public)
    own = statement.numbers_of(circuit, "witness", witness)
    bounds.check_bounds(circuit, {**known, **model})
    shapes, values = claims.shapes_of(circuit, known), {**circuit.constants, **known, **model, **own}
    rows = lookup_prover.rows_of_lookups(circuit, shapes, values)
    counts = lookup_prover.multiplicities(circuit, rows)

    plan = make_plan(circuit, committed is not None)
    transcript = statement.begin(circuit, plan, committed.root if committed else statement.weights_digest(model), known)
    commitment = _commit(plan.witness, {**own, **counts}, transcript)
    fractions, of_lookups = _prove_lookups(circuit, shapes, rows, counts, transcript)
    del rows  # a byte or two for each lookup
    messages, of_identities = prove_identities(circuit, shapes, values, transcript)
    claim = claims.combine(of_lookups + of_identities, transcript.challenge("claims"))
    claim = claims.settle(claim, {**circuit.constants, **known, **({} if committed else model)})
    opened = _open(claim, _parts(plan, commitment, committed), transcript)
    return to_bytes(Proof(commitment.root if commitment else b"", fractions, messages, opened))


def _parts(
    plan: Plan, commitment: Commitment | None, committed: CommittedWeights | None
) -> list[tuple[Store, Commitment]]:
    """What is opened, in the plan's order."""
    found = [commitment, committed.commitment if committed else None]
    return list(zip(plan.stores, (part for part in found if part is not None), strict=True))


def _commit(store: Store | None, numbers: Numbers, transcript: Transcript) -> Commitment | None:
    if store is None:
        return None
    vector = pack(store.packed.plan, [numbers[name] for name in store.packed.names], store.params.size)
    commitment = ligero.commit(vector, store.params)
    transcript.absorb("witness", commitment.root)
    return commitment


def _prove_lookups(
    circuit: Circuit, shapes: claims.Shapes, rows: list[lookup_prover.Rows], counts: Numbers, transcript: Transcript
) -> tuple[FractionMessages | None, list[Claim]]:
    if not circuit.lookups:
        return None, []
    compression = logup.draw(circuit, transcript)
    tree = lookup_prover.leaves(circuit, compression, rows, counts)
    messages, leaf = prove_fractions(tree, bits.num_levels(circuit), transcript)
    return messages, logup.leaf_claims(circuit, shapes, compression, leaf)


def _open(claim: Claim, parts: list[tuple[Store, Commitment]], transcript: Transcript) -> tuple[Opened, ...]:
    """Each commitment answers for its share of the claim; the last one's is what the others leave."""
    shares, opened = _shares(claim, parts), list[Opened]()
    for share in shares:
        transcript.absorb_pair("opening share", share)
    for share, (store, commitment) in zip(shares, parts, strict=True):
        own = opening.only(claim, share, store.packed)
        vector: Base = commitment.rows.reshape(-1)
        messages, point = opening.prove_opening(own, store.packed, vector, store.params.bits, transcript)
        opened.append(Opened(share, messages, ligero.open_at(commitment, point, transcript)))
    return tuple(opened)


def _shares(claim: Claim, parts: list[tuple[Store, Commitment]]) -> list[Element]:
    shares, left = list[Element](), claim.value
    for store, commitment in parts[1:]:
        own = opening.only(claim, (0, 0), store.packed)
        shares.append(opening.value_of(own, store.packed, commitment.rows.reshape(-1)))
        left = sub(left, shares[-1])
    return [left, *shares] if parts else []
