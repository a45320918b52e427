"""`shoal attest verify`: what a hardware quote proves, offline. Exit codes: 0 pass, 1 fail, 2 wrong usage, 3 unsure."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.core.errors import BadConfig, LocalError, Unsupported
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import say, write, write_json

if TYPE_CHECKING:
    from shoal.trust.attest.claims import AttestationVerdict, Evidence
    from shoal.trust.attest.policy import AttestationPolicy

UNSURE = 3

app = typer.Typer(help="Check what a machine's hardware says about it.", no_args_is_help=True)

Quote = Annotated[
    Path, typer.Argument(metavar="FILE", help="SGX or TDX quote, SEV-SNP report (binary or hex), or NVIDIA's answer.")
]
Collateral = Annotated[
    Path | None, typer.Option(help="Intel: dcap-qvl's JSON; AMD: VCEK, ASK, ARK as PEM; NVIDIA: the key set.")
]
Allow = Annotated[list[str] | None, typer.Option(help="mrtd=HEX,rtmr1=HEX,... all of it must hold; may be repeated.")]
Status = Annotated[list[str] | None, typer.Option(help="Accepted TCB status of Intel; default: UpToDate.")]
Pin = Annotated[list[str] | None, typer.Option(help="RFC 7638 thumbprint of an accepted key of NVIDIA's service.")]


@app.command("verify")
@configured()
def verify(
    loaded: Loaded,
    file: Quote,
    collateral: Collateral = None,
    allow: Allow = None,
    nonce: Annotated[
        str | None, typer.Option(help="The nonce you gave (64 hex digits), with --model and --node.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="SHA-256 of the weights file, hex.")] = None,
    node: Annotated[str | None, typer.Option(help="The node's public key, hex.")] = None,
    report_data: Annotated[str | None, typer.Option(help="Expected report_data, hex, instead of --nonce.")] = None,
    status: Status = None,
    min_tcb: Annotated[str | None, typer.Option(help="SEV-SNP: least boot loader,TEE,SNP,microcode.")] = None,
    min_tcb_number: Annotated[int, typer.Option(help="Intel: least TCB evaluation data number.")] = 0,
    nvidia_key: Pin = None,
    at: Annotated[str | None, typer.Option(help="Judge as of this time (ISO 8601), not now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Verify a quote against pinned roots, and judge what it says. Nothing is fetched."""
    expected = _expected(report_data, model, node, nonce)
    policy = replace(accepted(allow, status, nvidia_key), report_data=expected, min_tcb_number=min_tcb_number)
    policy = policy if min_tcb is None else replace(policy, min_tcb=_numbers(min_tcb))
    try:
        verdict = _verdict(loaded.config.home, file, collateral, policy, seconds(at))
    except Unsupported as error:  # exit code 1 would accuse the machine of what is missing here
        raise BadConfig("attest", str(error)) from None
    (_as_json if as_json else _as_text)(verdict)
    raise typer.Exit({"pass": 0, "fail": 1, "unsure": UNSURE}[verdict.result])


def accepted(allow: list[str] | None, status: list[str] | None, nvidia_key: list[str] | None) -> AttestationPolicy:
    """What these options accept, of any node and model."""
    from shoal.trust.attest.policy import AttestationPolicy

    return AttestationPolicy(
        allowed=tuple(_entry(text) for text in allow or ()),
        statuses=_statuses(status or ["UpToDate"]),
        nvidia_keys=tuple(nvidia_key or ()),
    )


def read_evidence(home: Path, file: Path, collateral: Path | None) -> Evidence:
    """A quote with the collateral given, or that which was kept for its platform. `Rejected` for what is no quote."""
    from shoal.trust.attest.cache import CollateralCache
    from shoal.trust.attest.claims import Evidence
    from shoal.trust.attest.verify import collateral_key

    quote = _read_quote(file)
    key = collateral_key(quote)
    return Evidence(quote, CollateralCache(home / "collateral").get(key) if collateral is None else _read(collateral))


def _verdict(
    home: Path, file: Path, collateral: Path | None, policy: AttestationPolicy, now: int
) -> AttestationVerdict:
    """Collateral that is given and was good is kept for the next quote of this platform."""
    from shoal.trust.attest.cache import CollateralCache
    from shoal.trust.attest.claims import AttestationVerdict, Rejected
    from shoal.trust.attest.verify import collateral_key, verify

    try:
        evidence = read_evidence(home, file, collateral)
    except Rejected as error:
        return AttestationVerdict("fail", (str(error),))
    verdict = verify(evidence, policy, now)
    if collateral is not None and verdict.claims is not None:
        try:
            CollateralCache(home / "collateral").put(collateral_key(evidence.quote), evidence.collateral or b"")
        except LocalError as error:  # the verdict does not hang on it
            say(str(error))
    return verdict


def _read(path: Path) -> bytes:
    """At most what `verify` would look at, and a byte more so that it can refuse."""
    from shoal.trust.attest.verify import MAX_COLLATERAL_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_COLLATERAL_BYTES + 1)
    except OSError as error:
        raise BadConfig(str(path), f"cannot be read: {error.strerror}") from error


def _read_quote(path: Path) -> bytes:
    data = _read(path)
    try:
        return bytes.fromhex(data.decode("ascii").removeprefix("0x"))
    except ValueError:
        return data


def _expected(report_data: str | None, model: str | None, node: str | None, nonce: str | None) -> bytes | None:
    from shoal.trust.attest import binding

    parts = {"--model": model, "--node": node, "--nonce": nonce}
    given = [name for name, text in parts.items() if text is not None]
    if report_data is not None:
        if given:
            raise BadConfig("--report-data", f"stands for {', '.join(parts)}; give one or the other")
        return hex_bytes("--report-data", report_data)
    if not given:
        return None
    if missing := [name for name in parts if name not in given]:
        raise BadConfig(missing[0], f"report_data is made of {', '.join(parts)}; give all three")
    return binding.report_data(*(hex_bytes(name, text or "", 32) for name, text in parts.items()))


def _entry(text: str) -> dict[str, bytes]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and value for name, _, value in pairs):
        raise BadConfig("--allow", f"expected NAME=HEX,... such as mrtd=91eb,rtmr1=0084; found {text!r:.80}")
    _check_names([name.strip() for name, _, _ in pairs])
    return {name.strip(): _measurement(name.strip(), value) for name, _, value in pairs}


def _check_names(names: list[str]) -> None:
    """One that no platform measures would hold nowhere, and read as an accusation; so would one given twice."""
    from shoal.trust.attest.policy import MEASUREMENTS

    for name in names:
        if not any(name in known for known in MEASUREMENTS.values()):
            known = "; ".join(f"{platform}: {', '.join(items)}" for platform, items in MEASUREMENTS.items())
            raise BadConfig("--allow", f"expected the name of a measurement ({known}); found {name!r:.80}")
        if names.count(name) > 1:
            raise BadConfig("--allow", f"{name} is named twice in one entry; another value goes into another --allow")


def _statuses(words: list[str]) -> tuple[str, ...]:
    from shoal.trust.attest.policy import STATUSES

    if wrong := [word for word in words if word not in STATUSES]:
        raise BadConfig("--status", f"expected one of {', '.join(STATUSES)}; found {wrong[0]!r:.80}")
    return tuple(words)


def _measurement(name: str, value: str) -> bytes:
    """Names and versions of GPUs are words, everything else is hex."""
    return value.encode() if name in ("hwmodel", "driver", "vbios") else hex_bytes(f"--allow {name}", value)


def hex_bytes(name: str, text: str, length: int | None = None) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise BadConfig(name, f"expected hex digits, found {text!r:.80}") from error
    if length is not None and len(value) != length:
        raise BadConfig(name, f"expected {2 * length} hex digits, found {len(text)}")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    parts = tuple(int(part) if part.strip().isdecimal() else -1 for part in text.split(","))
    if len(parts) != 4 or min(parts) < 0:
        raise BadConfig("--min-tcb", f"expected four numbers such as 3,0,20,209, found {text!r:.80}")
    return parts


def seconds(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadConfig("--at", f"expected a time such as 2026-11-23T12:00:00Z, found {text!r:.80}") from error
    if (seconds := int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())) < 0:
        raise BadConfig("--at", f"expected a time from 1970 on, found {text!r:.80}")
    return seconds


def _as_text(verdict: AttestationVerdict) -> None:
    write(f"{verdict.result}: {'; '.join(verdict.reasons)}\n")
    if claims := verdict.claims:
        write(f"platform     {claims.platform}{' (debug)' if claims.is_debug else ''}\n")
        write(f"TCB          {claims.tcb_status or claims.tcb} {' '.join(claims.advisories)}\n")
        write(f"report_data  {claims.report_data.hex()}\n")
        for name, value in claims.measurements.items():
            write(f"{name:<12} {_readable(value)}\n")
        for note in claims.notes:
            write(f"note         {note}\n")


def _as_json(verdict: AttestationVerdict) -> None:
    claims = verdict.claims
    shown = (
        None
        if claims is None
        else {
            "platform": claims.platform,
            "is_debug": claims.is_debug,
            "measurements": {name: _readable(value) for name, value in claims.measurements.items()},
            "report_data": claims.report_data.hex(),
            "tcb_status": claims.tcb_status,
            "advisories": claims.advisories,
            "tcb": claims.tcb,
            "tcb_number": claims.tcb_number,
            "vmpl": claims.vmpl,
            "expires": claims.expires,
            "notes": claims.notes,
        }
    )
    write_json({"result": verdict.result, "reasons": verdict.reasons, "claims": shown})


def _readable(value: bytes) -> str:
    return value.decode() if 0 < len(value) < 16 and value.isascii() else value.hex()
