"""What is accepted, and the decision over claims: plain data in, reasons out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shoal.trust.attest.claims import REPORT_DATA_BYTES, AttestationVerdict, Claims, Platform

NVIDIA_NONCE_BYTES = 32

AMD_ROOTS = (
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",  # ARK-Milan
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",  # ARK-Genoa
)
"""SHA-256 of the DER of AMD's root keys, as its key distribution service and virtee/sev hand them out."""

IDENTIFYING = {"sgx": ("mrenclave",), "tdx": ("mrtd", "rtmr1", "rtmr2"), "sev-snp": ("launch",), "nvidia": ("hwmodel",)}
"""What an entry of the allow-list has to name to pin down the software: TDX's MRTD alone is the firmware."""

MEASUREMENTS = {
    "sgx": ("mrenclave", "mrsigner"),
    "tdx": (
        *("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"),
        *("mrseam", "mrconfigid", "mrowner", "mrownerconfig"),
    ),
    "sev-snp": ("launch", "hostdata", "idkeydigest", "authorkeydigest", "familyid", "imageid"),
    "nvidia": ("hwmodel", "driver", "vbios"),
}
"""Every name that `Claims.measurements` may have: an entry with another would hold nowhere, whatever runs there."""

STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    "Revoked",
)
"""Intel's words for a TCB, as its provisioning service and `dcap-qvl` write them."""


@dataclass(frozen=True, slots=True)
class AttestationPolicy:
    """What the one who asks accepts.

    report_data     exactly this (`binding.report_data`; of NVIDIA's nonce its first 32 bytes); None: not checked, and
                    then the verdict is never a pass.
    allowed         an entry is a map of measurement -> value; one entry must hold in full. Empty: never a pass.
    statuses        Intel's TCB words that are accepted.
    advisories      Intel's advisories that may be open although the status is accepted; None: any.
    min_tcb_number  oldest TCB evaluation data number of the collateral, so that an old list is not presented.
    min_tcb         SEV-SNP: each part of (boot loader, TEE, SNP, microcode) at least this.
    max_vmpl        SEV-SNP: the lowest privilege level (highest number) that may have asked.
    intel_root      DER of another root than Intel's, for a test installation; None: Intel's, pinned in dcap-qvl.
    amd_roots       SHA-256 of the DER of accepted AMD roots, as hex.
    nvidia_keys     RFC 7638 thumbprints (hex SHA-256) of accepted keys of NVIDIA's service; they change within days.
    """

    report_data: bytes | None = None
    allowed: tuple[Mapping[str, bytes], ...] = ()
    platforms: tuple[Platform, ...] = ("sgx", "tdx", "sev-snp", "nvidia")
    statuses: tuple[str, ...] = ("UpToDate",)
    advisories: tuple[str, ...] | None = None
    min_tcb_number: int = 0
    min_tcb: tuple[int, ...] = (0, 0, 0, 0)
    max_vmpl: int = 0
    intel_root: bytes | None = None
    amd_roots: tuple[str, ...] = AMD_ROOTS
    nvidia_keys: tuple[str, ...] = ()


def judge(claims: Claims, policy: AttestationPolicy) -> AttestationVerdict:
    """The verdict on claims whose signatures held: any contradiction fails, anything unasked leaves it unsure."""
    if wrong := (*_platform(claims, policy), *_tcb(claims, policy), *_bound(claims, policy)):
        return AttestationVerdict("fail", wrong, claims)
    if missing := _unasked(claims, policy):
        return AttestationVerdict("unsure", missing, claims)
    return AttestationVerdict(
        "pass", (f"a genuine {claims.platform} platform runs what is allowed", *claims.notes), claims
    )


def _platform(claims: Claims, policy: AttestationPolicy) -> tuple[str, ...]:
    reasons = []
    if claims.platform not in policy.platforms:
        reasons.append(f"the platform is {claims.platform}; accepted: {', '.join(policy.platforms)}")
    if claims.is_debug:
        reasons.append("the debug bit is set: its owner can read and change its memory")
    if claims.vmpl > policy.max_vmpl:
        reasons.append(f"asked at privilege level VMPL {claims.vmpl}, expected at most {policy.max_vmpl}")
    return tuple(reasons)


def _tcb(claims: Claims, policy: AttestationPolicy) -> tuple[str, ...]:
    reasons = []
    if claims.tcb_status and claims.tcb_status not in policy.statuses:
        open_ = f" (open: {', '.join(claims.advisories)})" if claims.advisories else ""
        reasons.append(f"the platform's TCB is {claims.tcb_status}{open_}; accepted: {', '.join(policy.statuses)}")
    if policy.advisories is not None and (
        extra := [name for name in claims.advisories if name not in policy.advisories]
    ):
        reasons.append(f"advisories {', '.join(extra)} are open and not accepted")
    if claims.tcb_number is not None and claims.tcb_number < policy.min_tcb_number:
        reasons.append(
            f"the collateral is of TCB evaluation {claims.tcb_number}, at least {policy.min_tcb_number} wanted"
        )
    if claims.tcb and any(have < least for have, least in zip(claims.tcb, policy.min_tcb, strict=True)):
        reasons.append(f"the reported TCB is {claims.tcb}, expected at least {policy.min_tcb}")
    return tuple(reasons)


def _bound(claims: Claims, policy: AttestationPolicy) -> tuple[str, ...]:
    reasons = []
    if policy.report_data is not None and claims.report_data != policy.report_data[: _data_bytes(claims)]:
        reasons.append("report_data is not this model, node key and nonce: a replay, or made for somebody else")
    if policy.allowed and not any(_holds(entry, claims) for entry in policy.allowed):
        reasons.append(f"the measurements are on no entry of the allow-list ({_shown(claims)})")
    return tuple(reasons)


def _data_bytes(claims: Claims) -> int:
    """How much of `report_data` fits: NVIDIA's nonce is half as long."""
    return NVIDIA_NONCE_BYTES if claims.platform == "nvidia" else REPORT_DATA_BYTES


def _holds(entry: Mapping[str, bytes], claims: Claims) -> bool:
    """An empty entry, and one that names what this platform does not measure, hold nowhere."""
    return bool(entry) and all(claims.measurements.get(name) == value for name, value in entry.items())


def _unasked(claims: Claims, policy: AttestationPolicy) -> tuple[str, ...]:
    reasons: list[str] = []
    if policy.report_data is None:
        reasons.append("report_data was not compared: the quote may be old, or another node's")
    if not policy.allowed:
        reasons.append(f"no allow-list: what runs there is not known to be good ({_shown(claims)})")
    if holding := [entry for entry in policy.allowed if _holds(entry, claims)]:
        reasons += _open_ended(holding, IDENTIFYING[claims.platform])
    return tuple(reasons)


def _open_ended(holding: list[Mapping[str, bytes]], needed: tuple[str, ...]) -> tuple[str, ...]:
    """Nothing if one of the entries names all that is needed."""
    absent = min(([name for name in needed if name not in entry] for entry in holding), key=len)
    return (
        (f"the allow-list's entry does not name {', '.join(absent)}: other software could match it",) if absent else ()
    )


def _shown(claims: Claims) -> str:
    names = IDENTIFYING[claims.platform]
    return ", ".join(f"{name} {claims.measurements[name].hex()}" for name in names if name in claims.measurements)
