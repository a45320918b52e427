"""Policy, nonces, the cache, and evidence of makers of our own, whose every field can be varied."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attest_makers import NOW, TCB, Amd, Nvidia, make_amd, make_nvidia

from shoal.core.errors import Unsupported
from shoal.trust.attest.binding import MAX_NONCES, NONCE_LIFE_S, Nonces, report_data
from shoal.trust.attest.cache import CollateralCache
from shoal.trust.attest.claims import Claims, Evidence
from shoal.trust.attest.nvidia import thumbprint
from shoal.trust.attest.policy import MEASUREMENTS, AttestationPolicy, judge
from shoal.trust.attest.verify import collateral_key, verify

MODEL, NODE = b"m" * 32, b"n" * 32
LAUNCH = {"launch": b"\x11" * 48}


@pytest.fixture(scope="module")
def amd() -> Amd:
    return make_amd()


@pytest.fixture(scope="module")
def nvidia() -> Nvidia:
    return make_nvidia()


def test_a_fresh_report_of_the_right_model_and_node_passes_once(amd: Amd) -> None:
    nonces = Nonces()
    nonce = nonces.issue(now=10.0)
    bound = report_data(MODEL, NODE, nonce)
    policy = AttestationPolicy(bound, (LAUNCH,), amd_roots=(amd.root,), min_tcb=TCB)
    verdict = verify(amd.evidence(bound), policy, NOW)
    assert verdict.result == "pass"
    assert verdict.claims is not None
    assert set(verdict.claims.measurements) == set(MEASUREMENTS["sev-snp"])
    assert nonces.spend(nonce, now=11.0)
    assert not nonces.spend(nonce, now=12.0), "a nonce is good once, so the same quote again is a replay"


@pytest.mark.parametrize(
    "other", [(b"M" * 32, NODE, b"0" * 32), (MODEL, b"N" * 32, b"0" * 32), (MODEL, NODE, b"1" * 32)]
)
def test_another_model_node_or_nonce_is_another_report(amd: Amd, other: tuple[bytes, bytes, bytes]) -> None:
    policy = AttestationPolicy(report_data(*other), (LAUNCH,), amd_roots=(amd.root,))
    verdict = verify(amd.evidence(report_data(MODEL, NODE, b"0" * 32)), policy, NOW)
    assert verdict.result == "fail"
    assert "replay" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("fields", "change", "word"),
    [
        ({"policy": 1 << 19}, {}, "debug bit"),
        ({"vmpl": 2}, {}, "VMPL 2"),
        ({"launch": b"\x12" * 48}, {}, "allow-list"),
        ({}, {"min_tcb": (3, 0, 21, 209)}, "at least (3, 0, 21, 209)"),
        ({}, {"platforms": ("tdx",)}, "accepted: tdx"),
        ({}, {"allowed": ({},)}, "allow-list"),
        ({}, {"allowed": ({"mrtd": b"\x11" * 48},)}, "allow-list"),
    ],
)
def test_each_rule_of_the_policy_refuses(amd: Amd, fields: dict[str, Any], change: dict[str, Any], word: str) -> None:
    policy = replace(AttestationPolicy(bytes(64), (LAUNCH,), amd_roots=(amd.root,)), **change)
    verdict = verify(amd.evidence(bytes(64), **fields), policy, NOW)
    assert verdict.result == "fail"
    assert word in verdict.reasons[0]


def test_what_was_not_asked_leaves_it_unsure(amd: Amd) -> None:
    whole = AttestationPolicy(bytes(64), (LAUNCH,), amd_roots=(amd.root,))
    evidence = amd.evidence(bytes(64))
    assert verify(evidence, whole, NOW).result == "pass"
    assert verify(evidence, replace(whole, report_data=None), NOW).result == "unsure"
    assert verify(evidence, replace(whole, allowed=()), NOW).result == "unsure"
    assert (
        "does not name launch" in verify(evidence, replace(whole, allowed=({"hostdata": bytes(32)},)), NOW).reasons[0]
    )
    assert verify(evidence, replace(whole, allowed=({"hostdata": bytes(32)}, LAUNCH)), NOW).result == "pass"


def test_certificates_of_another_time_chip_or_root(amd: Amd) -> None:
    policy = AttestationPolicy(bytes(64), (LAUNCH,), amd_roots=(amd.root,))
    evidence = amd.evidence(bytes(64))
    assert verify(evidence, policy, NOW - 2 * 365 * 86400).result == "unsure"
    assert verify(evidence, AttestationPolicy(bytes(64), (LAUNCH,)), NOW).result == "fail", "AMD's own roots only"
    other = make_amd()
    mixed = verify(Evidence(evidence.quote, other.pem), replace(policy, amd_roots=(other.root,)), NOW)
    assert "signature does not verify" in mixed.reasons[0]
    assert verify(Evidence(evidence.quote), policy, NOW).result == "unsure"
    assert verify(Evidence(evidence.quote, amd.pem[:900]), policy, NOW).result == "unsure"


@pytest.mark.parametrize("platform", ["sgx", "tdx"])
def test_an_intel_debug_bit_is_refused_here_too(platform: Any) -> None:
    """dcap-qvl refuses debug enclaves before they get here; should it ever not, this does."""
    claims = Claims(platform, {}, bytes(64), is_debug=True, tcb_status="UpToDate")
    assert "debug bit" in judge(claims, AttestationPolicy()).reasons[0]


def gpu_policy(nvidia: Nvidia, nonce: bytes) -> AttestationPolicy:
    return AttestationPolicy(nonce, ({"hwmodel": b"GH100"},), nvidia_keys=(thumbprint(nvidia.jwk),))


def test_a_gpu_passes_by_the_word_of_a_pinned_key(nvidia: Nvidia) -> None:
    bound = report_data(MODEL, NODE, b"0" * 32)
    evidence = Evidence(nvidia.answer(bound[:32]), nvidia.collateral)
    verdict = verify(evidence, gpu_policy(nvidia, bound), NOW)
    assert verdict.result == "pass"
    assert verdict.claims is not None
    assert set(verdict.claims.measurements) == set(MEASUREMENTS["nvidia"])
    assert verify(evidence, gpu_policy(nvidia, bound), NOW + 3600).result == "unsure"
    assert verify(evidence, gpu_policy(make_nvidia(), bound), NOW).result == "unsure", "a key nobody pinned"
    assert verify(evidence, gpu_policy(nvidia, report_data(MODEL, NODE, b"1" * 32)), NOW).result == "fail"


@pytest.mark.parametrize(
    ("gpu", "overall", "word"),
    [
        ({"dbgstat": "enabled"}, {}, "debug bit"),
        ({"hwmodel": "GA100"}, {}, "allow-list"),
        ({"measres": "failure"}, {}, "measurements"),
        ({"secboot": False}, {}, "secure boot"),
        ({"eat_nonce": "11" * 32}, {}, "another nonce"),
        ({"iss": "https://example.org"}, {}, "expected a token of"),
        ({}, {"x-nvidia-overall-att-result": False}, "overall result"),
        ({}, {"x-nvidia-overall-att-result": 1}, "overall result"),
        ({}, {"submods": {}}, "not those"),
        ({}, {"exp": "never"}, "when it is valid"),
    ],
)
def test_each_claim_of_a_gpu_refuses(nvidia: Nvidia, gpu: dict[str, Any], overall: dict[str, Any], word: str) -> None:
    evidence = Evidence(nvidia.answer(bytes(32), gpu, overall), nvidia.collateral)
    verdict = verify(evidence, gpu_policy(nvidia, bytes(64)), NOW)
    assert verdict.result == "fail"
    assert word in verdict.reasons[0]


def test_a_token_without_a_signature_is_refused(nvidia: Nvidia) -> None:
    unsigned = nvidia.token({"iss": "https://nras.attestation.nvidia.com"}, alg="none")
    evidence = Evidence(unsigned.encode(), nvidia.collateral)
    assert "expected a token signed with ES384" in verify(evidence, gpu_policy(nvidia, bytes(64)), NOW).reasons[0]


def test_nonces_are_bounded_and_age() -> None:
    nonces = Nonces()
    first = nonces.issue(0.0)
    others = [nonces.issue(1.0) for _ in range(MAX_NONCES)]
    assert not nonces.spend(first, 2.0), "the oldest made way"
    assert nonces.spend(others[0], NONCE_LIFE_S + 1.0)
    assert not nonces.spend(others[1], NONCE_LIFE_S + 1.5)
    assert not nonces.spend(b"made up" * 5, 2.0)


@pytest.mark.parametrize("short", [(b"m", NODE, NODE), (MODEL, b"", NODE), (MODEL, NODE, b"n" * 33)])
def test_report_data_takes_whole_hashes(short: tuple[bytes, bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="expected 32 bytes"):
        report_data(*short)


def test_the_cache_keeps_few_whole_files_and_forgets_the_oldest(tmp_path: Path, amd: Amd) -> None:
    cache = CollateralCache(tmp_path / "c", limit=3)
    key = collateral_key(amd.report(bytes(64)))
    assert cache.get(key) is None
    cache.put(key, amd.pem)
    assert cache.get(key) == amd.pem
    (path,) = (tmp_path / "c").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.get(key) is None, "a damaged file is as good as absent"
    for number in range(5):
        cache.put(f"../{number}", bytes([number]))
    assert len(list((tmp_path / "c").iterdir())) == 3
    assert cache.get("../4") == b"\4"
    with pytest.raises(ValueError, match="at most"):
        cache.put("big", bytes(5 << 20))


@pytest.mark.parametrize(("package", "quote"), [("dcap_qvl", bytes(2000)), ("omne_attest", bytes(1184))])
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, amd: Amd, package: str, quote: bytes
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unsupported, match=r"shoal\[attest\]"):
        verify(Evidence(quote, amd.pem), AttestationPolicy(amd_roots=(amd.root,)), NOW)
