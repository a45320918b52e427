"""What a quote says once its signatures held, in the same words for every maker, and what came of judging it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shoal.trust.verdict import Finding, Outcome, Verdict

Platform = Literal["sgx", "tdx", "sev-snp", "nvidia"]

REPORT_DATA_BYTES = 64


@dataclass(frozen=True, slots=True)
class Evidence:
    """What somebody shows: the quote's bytes, and the certificates or collateral needed to check them.

    collateral  Intel: the JSON of `dcap-qvl`; AMD: VCEK, ASK and ARK as PEM, in this order; NVIDIA: the service's key
                set (JSON). None: nothing was given, and nothing can be said.
    """

    quote: bytes
    collateral: bytes | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """Signed by the platform, chained to a pinned root, not yet judged.

    measurements  by name: mrenclave, mrsigner; mrtd, rtmr0 to rtmr3, mrconfigid, mrowner, ...; launch, hostdata, ...
    report_data   what the guest put in, 64 bytes (NVIDIA: the nonce, as long as it is).
    tcb_status    Intel's word for the platform ("UpToDate", ...); "" where the maker has none.
    tcb           SEV-SNP: the reported TCB, (boot loader, TEE, SNP, microcode); () elsewhere.
    tcb_number    Intel's TCB evaluation data number; None elsewhere.
    vmpl          SEV-SNP: the privilege level that asked, 0 the highest; 0 elsewhere.
    expires       when the collateral, a certificate or the token ends (seconds since 1970); None: never said.
    notes         what a reader should know that decides nothing.
    """

    platform: Platform
    measurements: Mapping[str, bytes]
    report_data: bytes
    is_debug: bool
    tcb_status: str = ""
    advisories: tuple[str, ...] = ()
    tcb: tuple[int, ...] = ()
    tcb_number: int | None = None
    vmpl: int = 0
    expires: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AttestationVerdict:
    """pass: every check held. fail: one did not. unsure: nothing contradicts it, but something needed is missing.

    `reasons` are sentences for people: of a fail or unsure why, of a pass what was established.
    """

    result: Outcome
    reasons: tuple[str, ...]
    claims: Claims | None = field(default=None)

    def as_tier(self) -> Verdict:
        """The same as one of the tiers of checking; what it cost is nothing worth a number."""
        measured = () if self.claims is None else self.claims.measurements.items()
        findings = tuple(Finding(name, value.hex()) for name, value in measured)
        return Verdict("attestation", self.result, "; ".join(self.reasons), findings)


class Rejected(Exception):
    """These bytes are not what they claim: the verdict is fail."""


class Undecided(Exception):
    """What is needed to tell is missing or out of date: the verdict is unsure."""
