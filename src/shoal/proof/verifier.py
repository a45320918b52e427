"""Checks a proof against a circuit, public numbers and the weights or their commitment. Knows nothing of the witness.

Every refusal is a ProofRejected raised by a function called check_...: here, in proofs, gkr, identity_verifier, opening
and ligero. Nothing that decides is taken from the proof: shapes, widths and parameters come from the circuit.

What this does not protect against: a circuit that says something else than the model (compile it yourself, or trust
its digest), weights behind a root that are not what they should be, and anybody reading the witness: nothing is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.errors import InvalidRequest
from shoal.crypto.merkle import DIGEST_BYTES
from shoal.crypto.transcript import Transcript
from shoal.proof import bits, bounds, claims, ligero, logup, opening, statement
from shoal.proof.circuit import Circuit
from shoal.proof.claims import Claim
from shoal.proof.gkr import verify_fractions
from shoal.proof.identity_verifier import verify_identities
from shoal.proof.plan import Plan, Store, make_plan
from shoal.proof.proofs import Opened, Proof, from_bytes
from shoal.proof.rejected import ProofRejected
from shoal.proof.scalars import ZERO, Element, add
from shoal.proof.statement import Numbers
from shoal.proof.wellformed import check_circuit


@dataclass(frozen=True, slots=True)
class Verified:
    """How sound the accepted proof is: -log2 of the probability that a false statement passes."""

    bits_proven: float
    bits_conjectured: float
    errors: bits.Errors


def verify(
    circuit: Circuit, public: Numbers, proof: bytes, weights: Numbers | None = None, root: bytes | None = None
) -> Verified:
    """Raises ProofRejected if the proof does not show that some witness satisfies the circuit with these numbers.

    Give `weights` for proofs made without a commitment of theirs, `root` for those made with one. Raises InvalidRequest
    for a circuit or numbers that could not be proven at all.
    """
    check_circuit(circuit)
    known = statement.numbers_of(circuit, "public", public)
    model = statement.numbers_of(circuit, "weight", weights or {}) if root is None else {}
    if root is not None and weights is not None:
        raise InvalidRequest("weights: expected the numbers or the root of their commitment, found both", "weights")
    if root is not None and (type(root) is not bytes or len(root) != DIGEST_BYTES):
        raise InvalidRequest(f"root: expected {DIGEST_BYTES} bytes, found {root!r:.40}", "root")
    bounds.check_bounds(circuit, {**known, **model})
    plan = make_plan(circuit, root is not None)
    sent = from_bytes(proof, circuit, plan)
    transcript = statement.begin(circuit, plan, root or statement.weights_digest(model), known)
    claim = _reduce(circuit, claims.shapes_of(circuit, known), sent, transcript)
    _check_openings(claims.settle(claim, {**circuit.constants, **known, **model}), plan, sent, root, transcript)
    return Verified(plan.errors.proven, plan.errors.conjectured, plan.errors)


def check_shares(claim: Claim, shares: list[Element]) -> None:
    """What the commitments answer for is what the claims ask for, together."""
    total = ZERO
    for share in shares:
        total = add(total, share)
    if total != claim.value:
        raise ProofRejected("claims", "expected the commitments' shares to sum up to the combined claims")


def _reduce(circuit: Circuit, shapes: claims.Shapes, sent: Proof, transcript: Transcript) -> Claim:
    """Everything the circuit says, as one linear claim."""
    if sent.root:
        transcript.absorb("witness", sent.root)
    found = list[Claim]()
    if sent.fractions is not None:
        compression = logup.draw(circuit, transcript)
        found += logup.leaf_claims(circuit, shapes, compression, verify_fractions(sent.fractions, transcript))
    found += verify_identities(circuit, shapes, sent.identities, transcript)
    return claims.combine(found, transcript.challenge("claims"))


def _check_openings(claim: Claim, plan: Plan, sent: Proof, root: bytes | None, transcript: Transcript) -> None:
    check_shares(claim, [part.share for part in sent.opened])
    for part in sent.opened:
        transcript.absorb_pair("opening share", part.share)
    roots = ([sent.root] if plan.witness else []) + ([root] if plan.weights and root else [])
    for store, part, own_root in zip(plan.stores, sent.opened, roots, strict=True):
        _check_opening(claim, part, store, own_root, transcript)


def _check_opening(claim: Claim, part: Opened, store: Store, root: bytes, transcript: Transcript) -> None:
    own = opening.only(claim, part.share, store.packed)
    point = opening.verify_opening(own, store.packed, part.messages, transcript)
    ligero.check(root, store.params, point, part.messages.value, part.opening, transcript)
