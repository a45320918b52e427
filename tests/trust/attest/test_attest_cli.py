"""`shoal attest verify` as a person runs it: words, exit codes, and collateral that is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.node.cli import main

DATA = Path(__file__).parents[2] / "data" / "attest"
TDX = ["attest", "verify", str(DATA / "tdx_quote.bin"), "--at", "2025-07-01"]
COLLATERAL = ["--collateral", str(DATA / "tdx_quote_collateral.json")]
SEEN = {"mrtd": "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7",
        "rtmr1": "0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378",
        "rtmr2": "d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132",
        }  # fmt: skip
DATA_SEEN = ("9a9d48e7f6799642d3d1b34e1e5e1742d4bb02dd6ddd551862c1211d35c304f9"
             "eca3efdbb481601c163cf52493d6e44aed55d51ec39b7e518fadb92c2b523f20")  # fmt: skip


def test_pass_fail_and_unsure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    allow = ["--allow", ",".join(f"{name}={value}" for name, value in SEEN.items()), "--report-data", DATA_SEEN]
    assert main([*TDX, *home]) == 3
    assert "no collateral" in capsys.readouterr().out
    assert main([*TDX, *COLLATERAL, *home, *allow]) == 0
    assert capsys.readouterr().out.startswith("pass: a genuine tdx platform runs what is allowed")
    assert main([*TDX, *home, *allow, "--json"]) == 0, "the collateral was kept"
    assert json.loads(capsys.readouterr().out)["claims"]["measurements"]["mrtd"] == SEEN["mrtd"]
    fresh = ["--nonce", "00" * 32, "--model", "11" * 32, "--node", "22" * 32]
    assert main([*TDX, *home, *fresh]) == 1
    assert "replay" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (["--nonce", "00" * 32], "--model"),
        (["--report-data", "xyz"], "--report-data"),
        (["--report-data", "00", "--node", "00"], "--report-data"),
        (["--allow", "mrtd=zz"], "--allow mrtd"),
        (["--allow", "mrtdd=00"], "tdx: mrtd, rtmr0"),
        (["--allow", "mrtd=00,MRTD=00"], "'MRTD'"),
        (["--allow", "mrtd=00,mrtd=01"], "named twice"),
        (["--status", "Bogus"], "expected one of UpToDate, SWHardeningNeeded"),
        (["--status", "UpToDate", "--status", "uptodate"], "'uptodate'"),
        (["--min-tcb", "1,2"], "--min-tcb"),
        (["--at", "yesterday"], "--at"),
        (["--collateral", "/does/not/exist"], "/does/not/exist"),
    ],
)
def test_wrong_usage_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], word: str) -> None:
    assert main([*TDX, "--home", str(tmp_path), *wrong]) == 2
    assert word in capsys.readouterr().err
