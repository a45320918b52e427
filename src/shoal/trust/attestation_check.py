"""The attestation tier for an answer: a quote whose `report_data` is the receipt's weights, signer's key and a nonce.

A pass says that a genuine platform which runs allowed software was given this nonce with this key and this model, at
the time the nonce was new. What it does not protect against: software that is allowed and hands its key out (then the
answer may have been signed elsewhere), nonces that are older than whoever checks believes, adapters (nothing in the
quote names them: unsure), and what `trust.attest` does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoal.core.errors import InvalidRequest
from shoal.trust.attest.binding import report_data
from shoal.trust.attest.claims import Claims, Evidence
from shoal.trust.attest.policy import AttestationPolicy
from shoal.trust.attest.verify import verify
from shoal.trust.check import Subject
from shoal.trust.verdict import Verdict

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class AttestationCheck:
    """A `Checker`. policy: what is accepted, of any node and model. nonce: the verifier's own, 32 bytes.

    subjects  all parts of the answer: a quote of the signer of one of them says nothing against the others.
    now       seconds since 1970.
    """

    evidence: Evidence
    policy: AttestationPolicy
    nonce: bytes
    subjects: Sequence[Subject]
    now: int

    async def __call__(self, subject: Subject) -> Verdict:
        """InvalidRequest for an answer whose receipt names no weights, or an adapter."""
        expected = self._expected(subject)
        found = verify(self.evidence, replace(self.policy, report_data=expected), self.now)
        if found.result == "fail" and found.claims is not None and self._is_of_another(subject, found.claims):
            return Verdict("attestation", "unsure", "the quote is of the signer of another part of this answer")
        return found.as_tier()

    def _expected(self, subject: Subject) -> bytes:
        receipt = subject.receipt
        if receipt.model.adapter or len(receipt.model.weights) != DIGEST_BYTES:
            found = "an adapter" if receipt.model.adapter else "no weights"
            raise InvalidRequest(f"a quote binds the digest of whole weights; this receipt names {found}")
        return report_data(receipt.model.weights, receipt.node, self.nonce)

    def _is_of_another(self, subject: Subject, claims: Claims) -> bool:
        others = [one for one in self.subjects if one is not subject and _is_bindable(one)]
        found = claims.report_data
        return bool(found) and any(self._expected(one)[: len(found)] == found for one in others)


def _is_bindable(subject: Subject) -> bool:
    return not subject.receipt.model.adapter and len(subject.receipt.model.weights) == DIGEST_BYTES
