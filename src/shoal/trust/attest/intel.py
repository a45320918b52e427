"""Intel SGX and TDX quotes (DCAP, ECDSA P-256) to claims. The cryptography, CRLs and TCB matching are dcap-qvl's.

Its verifier refuses debug enclaves itself; the bit is read here again, because a library's default is not a policy.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from shoal.core.errors import Unsupported
from shoal.trust.attest.claims import Claims, Evidence, Rejected, Undecided

if TYPE_CHECKING:
    import dcap_qvl

SGX_DEBUG = 0x02
TDX_DEBUG = 0x01
_TDX_NAMES = {"mrtd": "mr_td", "rtmr0": "rt_mr0", "rtmr1": "rt_mr1", "rtmr2": "rt_mr2", "rtmr3": "rt_mr3",
              "mrseam": "mr_seam", "mrconfigid": "mr_config_id", "mrowner": "mr_owner",
              "mrownerconfig": "mr_owner_config"}  # fmt: skip
_SGX_NAMES = {"mrenclave": "mr_enclave", "mrsigner": "mr_signer"}


def claims_of(evidence: Evidence, now: int, root: bytes | None = None) -> Claims:
    """The claims, or Rejected (forged, debug, TCB unknown) or Undecided (no collateral, or not of this time).

    `root`: DER of another root certificate than Intel's.
    """
    qvl = _library()
    if evidence.collateral is None:
        raise Undecided("no collateral (TCB info, identities, revocation lists) was given or cached")
    try:
        collateral = qvl.QuoteCollateralV3.from_json(evidence.collateral.decode())
    except ValueError as error:
        raise Undecided(f"the collateral is not dcap-qvl's JSON: {error}") from error
    try:
        return _claims(_verified(qvl, evidence.quote, collateral, now, root))
    except ValueError:
        _explain(qvl, evidence.quote, collateral, now, root)


def collateral_key(quote: bytes) -> str:
    """Which collateral a quote needs: platform, processor family and certificate authority. Rejected for no quote."""
    try:
        parsed = _library().parse_quote(quote)
        return f"{parsed.quote_type()}-{parsed.fmspc()}-{parsed.ca()}"
    except ValueError as error:
        raise Rejected(f"not an SGX or TDX quote: {' '.join(str(error).split())}") from error


def _library() -> Any:
    try:
        import dcap_qvl
    except ImportError as error:
        raise Unsupported("Intel quotes need dcap-qvl; install it with: pip install 'shoal[attest]'") from error
    return dcap_qvl


def _verified(
    qvl: Any, quote: bytes, collateral: dcap_qvl.QuoteCollateralV3, now: int, root: bytes | None
) -> dict[str, Any]:
    """dcap-qvl's claims, with every question of policy left to ours."""
    verifier = qvl.QuoteVerifier() if root is None else qvl.QuoteVerifier(root)
    found = verifier.verify_with_policy(quote, collateral, now, qvl.QuotePolicy.claims_only(now))
    claims: dict[str, Any] = json.loads(found.to_json())
    return claims


def _explain(qvl: Any, quote: bytes, collateral: dcap_qvl.QuoteCollateralV3, now: int, root: bytes | None) -> NoReturn:
    """Undecided where the quote does verify at the time its collateral is of; else Rejected for what holds then."""
    try:
        parts = [json.loads(part) for part in (collateral.tcb_info, collateral.qe_identity)]
        issued = max(_seconds(part["issueDate"]) for part in parts)
        ends = min(_seconds(part["nextUpdate"]) for part in parts)
        _verified(qvl, quote, collateral, issued, root)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Rejected(f"the quote does not verify: {error}") from error
    raise Undecided(f"the collateral is of {_day(issued)} to {_day(ends)}, not of {_day(now)}: fetch a fresh one")


def _claims(found: dict[str, Any]) -> Claims:
    ((kind, report),) = found["report"].items()
    is_sgx = kind == "SgxEnclave"
    report = report if is_sgx or "mr_td" in report else report["base"]
    attributes = bytes.fromhex(report["attributes" if is_sgx else "td_attributes"])
    names = _SGX_NAMES if is_sgx else _TDX_NAMES
    return Claims(
        platform="sgx" if is_sgx else "tdx",
        measurements={name: bytes.fromhex(report[field]) for name, field in names.items()},
        report_data=bytes.fromhex(report["report_data"]),
        is_debug=bool(attributes[0] & (SGX_DEBUG if is_sgx else TDX_DEBUG)),
        tcb_status=found["tcb"]["status"],
        advisories=tuple(found["tcb"]["advisory_ids"]),
        tcb_number=min(found["tcb"]["eval_data_number"], found["qe"]["tcb_eval_data_number"]),
        expires=min(found["earliest_expiration_date"], found["qe_iden_earliest_expiration_date"]),
        notes=_notes(found["platform"]["pck"]),
    )


def _notes(pck: dict[str, Any]) -> tuple[str, ...]:
    return ("hyper-threading is on",) if pck["smt_enabled"] == "True" else ()


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
