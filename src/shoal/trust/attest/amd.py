"""AMD SEV-SNP reports (versions 2 to 5, Milan and Genoa) to claims. Layout and signatures are `omne-attest`'s.

Checked here besides: the certificates' dates, and that bytes the signature does not cover are zero, so that a report
has one encoding. Not checked: AMD's revocation list, which names intermediate keys only; a policy's `amd_roots` and
`min_tcb` are what a verifier has against a broken generation.
"""

from __future__ import annotations

import hashlib
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from shoal.core.errors import Unsupported
from shoal.trust.attest.claims import Claims, Evidence, Rejected, Undecided

if TYPE_CHECKING:
    from omne_attest import snp

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
SCALAR_BYTES = 48
FIELD_BYTES = 72
DEBUG = 1 << 19
MIGRATION_AGENT = 1 << 18
SMT = 1 << 16


def claims_of(evidence: Evidence, now: int, roots: tuple[str, ...]) -> Claims:
    """The claims, or Rejected (forged, another chip's, foreign root) or Undecided (no certificates, or not of this
    time). `roots`: SHA-256 of accepted root certificates' DER, as hex.
    """
    if evidence.collateral is None:
        raise Undecided("no certificates (VCEK, ASK, ARK) were given or cached")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # AMD numbers its VCEKs zero
        return _checked(evidence.quote, evidence.collateral, now, roots)


def _checked(quote: bytes, pem: bytes, now: int, roots: tuple[str, ...]) -> Claims:
    library = _library()
    certificates = _certificates(pem)
    vcek, ask, ark = (item.public_bytes(Encoding.DER) for item in certificates)
    root = hashlib.sha256(ark)
    if root.hexdigest() not in roots:
        raise Rejected(f"the root certificate {root.hexdigest()} is not one of AMD's that are pinned")
    try:
        report = library.Report.parse(quote)
        report.verify_signature(vcek)
        library.verify_chain(vcek, ask, ark, root.digest())
        report.verify_vcek_binding(vcek)
    except library.Fail as error:
        raise Rejected(f"the report does not verify: {error}") from error
    _only_signed_bytes(quote)
    return _claims(report, _within(certificates, now))


def collateral_key(quote: bytes) -> str:
    """Which VCEK a report needs: of this chip at this TCB."""
    try:
        report = _library().Report.parse(quote)
    except _library().Fail as error:
        raise Rejected(f"not an SEV-SNP report: {error}") from error
    return f"SNP-{report.chip_id.hex()}-{report.raw[0x180:0x188].hex()}"


def _library() -> Any:
    try:
        from omne_attest import snp
    except ImportError as error:
        raise Unsupported("SEV-SNP reports need omne-attest; install it with: pip install 'shoal[attest]'") from error
    return snp


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise Undecided(f"the collateral is not PEM certificates: {error}") from error
    if len(found) != 3:
        raise Undecided(f"expected three certificates (VCEK, ASK, ARK), found {len(found)}")
    return found


def _only_signed_bytes(report: bytes) -> None:
    """Rejected where a byte that neither the signature covers nor it is made of is not zero."""
    r_end, s_end = (SIGNED_BYTES + field * FIELD_BYTES + SCALAR_BYTES for field in (0, 1))
    if any(report[r_end : SIGNED_BYTES + FIELD_BYTES]) or any(report[s_end:]):
        raise Rejected("bytes outside the signature are not zero")


def _within(certificates: list[x509.Certificate], now: int) -> int:
    """When the first of them ends. Undecided where one is not valid now."""
    at = datetime.fromtimestamp(now, UTC)
    for item in certificates:
        if not item.not_valid_before_utc <= at <= item.not_valid_after_utc:
            raise Undecided(
                f"the certificate of {item.subject.rfc4514_string()} is valid from {item.not_valid_before_utc:%Y-%m-%d}"
                f" to {item.not_valid_after_utc:%Y-%m-%d}, not at {at:%Y-%m-%d}"
            )
    return min(int(item.not_valid_after_utc.timestamp()) for item in certificates)


def _claims(report: snp.Report, expires: int) -> Claims:
    tcb = report.reported_tcb
    return Claims(
        platform="sev-snp",
        measurements={
            "launch": report.measurement,
            "hostdata": report.host_data,
            "idkeydigest": report.id_key_digest,
            "authorkeydigest": report.author_key_digest,
            "familyid": report.family_id,
            "imageid": report.image_id,
        },
        report_data=report.report_data,
        is_debug=bool(report.policy & DEBUG),
        tcb=(tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode),
        vmpl=report.vmpl,
        expires=expires,
        notes=_notes(report.policy),
    )


def _notes(policy: int) -> tuple[str, ...]:
    said = ((MIGRATION_AGENT, "a migration agent may move the guest"), (SMT, "hyper-threading is allowed"))
    return tuple(text for bit, text in said if policy & bit)
