"""Quotes of real hardware, verified offline: what passes, what is out of date, which flipped bits are seen."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoal.trust.attest.binding import report_data
from shoal.trust.attest.claims import Evidence
from shoal.trust.attest.nvidia import thumbprint
from shoal.trust.attest.policy import MEASUREMENTS, STATUSES, AttestationPolicy
from shoal.trust.attest.verify import maker, verify

DATA = Path(__file__).parents[2] / "data" / "attest"
RECORDED = {
    "sgx": ("sgx_quote.bin", "sgx_quote_collateral.json"),
    "tdx": ("tdx_quote.bin", "tdx_quote_collateral.json"),
    "outdated": ("tdx_outdated.bin", "tdx_outdated_collateral.json"),
    "snp": ("snp_debug_guest.bin", "snp_milan.pem"),
    "nvidia": ("nvidia_overall.jwt", "nvidia_jwks.json"),
}
NVIDIA_PIN = "7ca39bf4a9c85c42afd454a3c44c4571ea7779683c0611b74ed82c16ad514eb3"


def recorded(name: str) -> Evidence:
    quote, collateral = RECORDED[name]
    return Evidence((DATA / quote).read_bytes(), (DATA / collateral).read_bytes())


def day(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


IN_WINDOW = day("2025-07-01")
TDX = AttestationPolicy(
    report_data=bytes.fromhex(
        "9a9d48e7f6799642d3d1b34e1e5e1742d4bb02dd6ddd551862c1211d35c304f9"
        "eca3efdbb481601c163cf52493d6e44aed55d51ec39b7e518fadb92c2b523f20"
    ),
    allowed=(
        {
            "mrtd": bytes.fromhex(
                "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7"
            ),
            "rtmr1": bytes.fromhex(
                "0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378"
            ),
            "rtmr2": bytes.fromhex(
                "d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132"
            ),
        },
    ),
)
SGX = AttestationPolicy(
    report_data=b"Hello, world!".ljust(64, b"\0"),
    allowed=({"mrenclave": bytes.fromhex("33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb")},),
    statuses=("UpToDate", "ConfigurationAndSWHardeningNeeded"),
)


def test_a_tdx_quote_passes_in_the_month_of_its_collateral() -> None:
    verdict = verify(recorded("tdx"), TDX, IN_WINDOW)
    assert verdict.result == "pass"
    assert verdict.claims is not None
    assert verdict.claims.tcb_status == "UpToDate"
    assert verdict.as_tier().outcome == "pass"


def test_the_names_for_entries_are_those_of_the_claims() -> None:
    for name, policy in (("tdx", TDX), ("sgx", SGX)):
        claims = verify(recorded(name), policy, IN_WINDOW).claims
        assert claims is not None
        assert set(MEASUREMENTS[claims.platform]) == set(claims.measurements)
        assert claims.tcb_status in STATUSES


def test_an_sgx_quote_passes_only_where_its_tcb_is_accepted() -> None:
    assert verify(recorded("sgx"), SGX, IN_WINDOW).result == "pass"
    strict = verify(recorded("sgx"), replace(SGX, statuses=("UpToDate",)), IN_WINDOW)
    assert strict.result == "fail"
    assert "INTEL-SA-00615" in strict.reasons[0]
    assert verify(recorded("sgx"), replace(SGX, advisories=("INTEL-SA-00289",)), IN_WINDOW).result == "fail"
    assert verify(recorded("sgx"), replace(SGX, min_tcb_number=18), IN_WINDOW).result == "fail"
    assert verify(recorded("sgx"), replace(SGX, min_tcb_number=17), IN_WINDOW).result == "pass"


@pytest.mark.parametrize("name", ["sgx", "tdx"])
@pytest.mark.parametrize("when", ["2024-01-01", "2025-06-18", "2025-07-20", "2026-11-23"])
def test_collateral_of_another_time_decides_nothing(name: str, when: str) -> None:
    verdict = verify(recorded(name), TDX if name == "tdx" else SGX, day(when))
    assert verdict.result == "unsure"
    assert "2025-06-19 to 2025-07-19" in verdict.reasons[0]


@pytest.mark.parametrize("when", ["2026-03-01", "2026-11-23"])
def test_a_platform_without_a_tcb_level_fails_at_any_time(when: str) -> None:
    verdict = verify(recorded("outdated"), AttestationPolicy(), day(when))
    assert verdict.result == "fail"
    assert "No matching TCB level" in verdict.reasons[0]


def test_no_collateral_and_foreign_collateral() -> None:
    assert verify(Evidence(recorded("tdx").quote), TDX, IN_WINDOW).result == "unsure"
    assert verify(Evidence(recorded("tdx").quote, b"{}"), TDX, IN_WINDOW).result == "unsure"
    assert verify(Evidence(recorded("tdx").quote, recorded("sgx").collateral), TDX, IN_WINDOW).result == "fail"


def test_a_root_that_is_not_pinned_is_refused() -> None:
    """Intel's chain under another root: AMD's certificate stands for any."""
    other = (DATA / "snp_milan.pem").read_bytes().split(b"-----")[2]
    root = base64.b64decode(other)
    assert verify(recorded("tdx"), replace(TDX, intel_root=root), IN_WINDOW).result == "fail"
    snp = AttestationPolicy(amd_roots=("00" * 32,))
    assert "not one of AMD's" in verify(recorded("snp"), snp, day("2026-11-01")).reasons[0]


def test_a_debug_guest_is_refused_although_everything_else_holds() -> None:
    """This guest was launched with debug on: every signature verifies, and its owner could read its memory."""
    verdict = verify(recorded("snp"), AttestationPolicy(), day("2026-11-01"))
    assert verdict.result == "fail"
    assert "debug bit" in verdict.reasons[0]
    assert verdict.claims is not None
    assert verdict.claims.tcb == (2, 0, 5, 68)
    assert verify(recorded("snp"), AttestationPolicy(), day("2026-08-01")).result == "unsure"  # VCEK of 28 August


def test_a_recorded_quote_is_not_of_our_nonce() -> None:
    fresh = report_data(bytes(32), bytes(32), b"\x07" * 32)
    verdict = verify(recorded("tdx"), replace(TDX, report_data=fresh), IN_WINDOW)
    assert verdict.result == "fail"
    assert "replay" in verdict.reasons[0]


def test_the_overall_token_of_nvidia_is_genuine_and_not_enough() -> None:
    policy = AttestationPolicy(nvidia_keys=(NVIDIA_PIN,))
    assert "GPUs' own tokens" in verify(recorded("nvidia"), policy, 1_791_376_700).reasons[0]
    assert verify(recorded("nvidia"), policy, 1_791_376_700).result == "unsure"
    assert "valid from" in verify(recorded("nvidia"), policy, 1_791_380_214).reasons[0]
    assert "pinned" in verify(recorded("nvidia"), AttestationPolicy(), 1_791_376_700).reasons[0]
    key = json.loads(recorded("nvidia").collateral or b"")["keys"][0]
    assert thumbprint(key) == NVIDIA_PIN


def flipped(evidence: Evidence, bit: int) -> Evidence:
    quote = bytearray(evidence.quote)
    quote[bit // 8] ^= 1 << bit % 8
    return Evidence(bytes(quote), evidence.collateral)


@pytest.mark.parametrize(("name", "policy", "signed"), [("sgx", SGX, 432), ("tdx", TDX, 632)])
def test_which_flipped_bits_intel_quotes_survive(name: str, policy: AttestationPolicy, signed: int) -> None:
    """None of the header and report, which the signature covers. Others do: the root's copy (the root is pinned), line
    ends of certificates, lengths of what follows, padding. So a quote's bytes are no identity, and what an accepted
    quote says is what the untouched one says.
    """
    evidence = recorded(name)
    whole = verify(evidence, policy, IN_WINDOW)
    bits = random.Random(5).sample(range(8 * len(evidence.quote)), 200) + random.Random(6).sample(range(8 * signed), 50)
    verdicts = {bit: verify(flipped(evidence, bit), policy, IN_WINDOW) for bit in bits}
    accepted = {bit: verdict for bit, verdict in verdicts.items() if verdict.result == "pass"}
    assert accepted, "some bits are known not to matter; if none is left, the docs are out of date"
    assert min(accepted) >= 8 * signed
    assert all(verdict == whole for verdict in accepted.values())


def test_no_flipped_bit_of_an_amd_report_survives() -> None:
    """The library leaves padding unchecked; here every byte is signed, part of the signature, or zero."""
    evidence = recorded("snp")
    tail = range(8 * 0x2A0, 8 * len(evidence.quote))
    bits = random.Random(6).sample(range(8 * 0x2A0), 60) + random.Random(7).sample(tail, 120)
    for bit in bits:
        verdict = verify(flipped(evidence, bit), AttestationPolicy(), day("2026-11-01"))
        assert verdict.result == "fail"
        assert verdict.claims is None, f"bit {bit} went unnoticed"


def test_no_flipped_bit_of_a_token_survives() -> None:
    evidence, policy = recorded("nvidia"), AttestationPolicy(nvidia_keys=(NVIDIA_PIN,))
    for bit in random.Random(8).sample(range(8 * len(evidence.quote)), 200):
        verdict = verify(flipped(evidence, bit), policy, 1_791_376_700)
        assert verdict.result == "fail" or "is not in the pinned key set" in verdict.reasons[0], f"bit {bit}"


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(1184), b"\xff" * 1184, bytes(5000), b"eyJ", b"eyJ..", b'[["JWT",1],2]']
)
def test_what_is_no_quote_fails_and_raises_nothing(data: bytes) -> None:
    collateral = {"amd": "snp", "intel": "tdx", "nvidia": "nvidia"}[maker(data)]
    policy = AttestationPolicy(nvidia_keys=(NVIDIA_PIN,))
    assert verify(Evidence(data, recorded(collateral).collateral), policy, IN_WINDOW).result == "fail"


def test_random_bytes_and_truncations_never_raise() -> None:
    chance = random.Random(9)
    for name, (policy, now) in {"tdx": (TDX, IN_WINDOW), "snp": (AttestationPolicy(), day("2026-11-01"))}.items():
        whole = recorded(name)
        for _ in range(25):
            cut = Evidence(whole.quote[: chance.randrange(len(whole.quote))], whole.collateral)
            noise = Evidence(chance.randbytes(len(whole.quote)), whole.collateral)
            spoiled = Evidence(whole.quote, chance.randbytes(200))
            assert {verify(item, policy, now).result for item in (cut, noise, spoiled)} <= {"fail", "unsure"}


DEEP = b"[" * 100_000
NVIDIA_QUOTE = b'[["JWT", "a.b.c"], {}]'
TWISTED: list[tuple[bytes, bytes]] = [
    (NVIDIA_QUOTE, DEEP),
    (NVIDIA_QUOTE, b'{"keys":' + DEEP),
    (b'[["JWT", "a.b.c"],' + DEEP, b'{"keys": []}'),
    (json.dumps([["JWT", "a.\ud800.c"], {}]).encode(), (DATA / "nvidia_jwks.json").read_bytes()),
    (json.dumps([["JWT", "a.b.c"], {"GPU-0": "\ud800"}]).encode(), (DATA / "nvidia_jwks.json").read_bytes()),
]


@pytest.mark.parametrize(("quote", "collateral"), TWISTED, ids=range(len(TWISTED)))
def test_what_breaks_a_parser_is_a_verdict_too(quote: bytes, collateral: bytes) -> None:
    policy = AttestationPolicy(nvidia_keys=(NVIDIA_PIN,))
    assert verify(Evidence(quote, collateral), policy, IN_WINDOW).result in ("fail", "unsure")


def test_collateral_whose_parts_are_nested_without_end() -> None:
    evidence = recorded("tdx")
    parts = json.loads(evidence.collateral or b"") | {"tcb_info": DEEP.decode()}
    twisted = replace(evidence, collateral=json.dumps(parts).encode())
    assert verify(twisted, TDX, IN_WINDOW).result == "fail"
