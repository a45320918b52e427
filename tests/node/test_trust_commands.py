"""What people type by mistake: exit code 2 and one message, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.node.cli import main


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "deep").write_bytes(b"[" * 100_000)
    (tmp_path / "tags").write_bytes(b"\x81" * 5_000)
    (tmp_path / "folder").mkdir()


FILES = ("empty", "deep", "tags", "folder", "no")
WRONG = [
    *(f"{command} {file}" for command in ("receipt verify", "receipt show", "check") for file in FILES),
    "check",
    "check --calibrate x",
    "attest verify folder",
    "attest verify no",
    "attest verify empty --at 0001-01-01",
    "attest verify empty --at soon",
    "attest verify empty --min-tcb 1,2,3,²",
    "attest verify empty --allow mrtd=zz",
    "attest verify empty --allow mrtd",
    "attest verify empty --nonce 12",
    "water",
    "water --country ZZZ",
    "water --kwh inf --country NG",
    "water --since x",
    "water --until 2026-13-01",
    "water --since 2026-11-05 --until 2026-11-01",
    "water --country NG --all",
    "water --country NG --since 2026-11-01",
    "ipw --setting foo",
    "ipw --setting threads=x",
    "ipw --count 1",
]


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_is_told_in_one_message(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    told = capsys.readouterr()
    assert "internal error" not in told.err
    assert "Traceback" not in told.err
    assert told.err.strip()
