"""One function: evidence, policy, time -> verdict. No network, no clock, no state."""

from __future__ import annotations

from collections.abc import Callable

from shoal.trust.attest import amd, intel, nvidia
from shoal.trust.attest.claims import AttestationVerdict, Claims, Evidence, Rejected, Undecided
from shoal.trust.attest.policy import AttestationPolicy, judge

MAX_QUOTE_BYTES = 1 << 20
MAX_COLLATERAL_BYTES = 4 << 20


def verify(evidence: Evidence, policy: AttestationPolicy, now: int) -> AttestationVerdict:
    """The verdict at `now` (seconds since 1970). Unsupported where the maker's package is not installed; never raises
    over what the evidence holds.
    """
    try:
        _only_so_large(evidence)
        return judge(_claims(evidence, policy, now), policy)
    except Rejected as error:
        return AttestationVerdict("fail", (str(error),))
    except Undecided as error:
        return AttestationVerdict("unsure", (str(error),))


def collateral_key(quote: bytes) -> str:
    """Which collateral checks this quote: a name for a cache. Rejected for what is no quote."""
    of = {"amd": amd.collateral_key, "intel": intel.collateral_key, "nvidia": nvidia.collateral_key}
    return of[maker(quote)](quote)


def maker(quote: bytes) -> str:
    """Whose quote this seems to be: "amd", "intel" or "nvidia". Only signatures tell."""
    if len(quote) == amd.REPORT_BYTES:
        return "amd"
    return "nvidia" if quote[:3] in (b"eyJ", b'[["') else "intel"


def _claims(evidence: Evidence, policy: AttestationPolicy, now: int) -> Claims:
    read: dict[str, Callable[[], Claims]] = {
        "amd": lambda: amd.claims_of(evidence, now, policy.amd_roots),
        "intel": lambda: intel.claims_of(evidence, now, policy.intel_root),
        "nvidia": lambda: nvidia.claims_of(evidence, now, policy.nvidia_keys),
    }
    return read[maker(evidence.quote)]()


def _only_so_large(evidence: Evidence) -> None:
    for name, data, limit in (
        ("a quote", evidence.quote, MAX_QUOTE_BYTES),
        ("collateral", evidence.collateral or b"", MAX_COLLATERAL_BYTES),
    ):
        if len(data) > limit:
            raise Rejected(f"expected {name} of at most {limit} bytes, found {len(data)}")
