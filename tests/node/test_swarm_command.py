"""`shoal swarm`: the ballot as a table, a whole round with a tiny model, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.core.ranking import Candidate, Ranking, Verdict
from shoal.models.tiny_file import write_tiny
from shoal.node.cli import main
from shoal.node.commands.swarm import ballot


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    write_tiny(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


def test_the_winner_comes_first_and_verdicts_are_counted_from_both_sides() -> None:
    candidates = tuple(Candidate(name, b"", score, 0.5, True) for name, score in (("a", -1.0), ("b", 2.0), ("c", 3.0)))
    ranking = Ranking("swarm", 1, candidates, (Verdict(0, 0, 1, 0.25), Verdict(1, 1, 0, 1.0)))
    assert ballot(ranking) == [
        ("b", "+2.00 +- 0.50", "yes", "1.8", "0.2"),
        ("c", "-", "yes", "0.0", "0.0"),
        ("a", "-1.00 +- 0.50", "yes", "0.2", "1.8"),
    ]


def test_a_round_with_progress_ballot_and_answer(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", str(tiny), "--max-tokens", "6", "--seed", "1"]
    assert main(["swarm", "2+2?", *given, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [candidate["member"] for candidate in found["ranking"]["candidates"]] == [
        "tiny@0#0",
        "tiny@0.6#1",
        "tiny@1#2",
    ]
    assert found["usage"]["completion_tokens"] >= 3
    assert "3 members answer" in said.err
    assert main(["swarm", "2+2?", *given, "--member", "tiny*3", "--strategy", "vote"]) == 0
    assert capsys.readouterr().out.startswith("answer of")
    assert main(["swarm", "2+2?", *given, "--strategy", "believed", "--json"]) == 0
    ranking = json.loads(capsys.readouterr().out)["ranking"]
    said = {(one["judge"], one["first"], one["second"]): one["for_first"] for one in ranking["verdicts"]}
    assert ranking["strategy"] == "believed"
    assert all(abs(verdict + said[judge, b, a] - 1) < 1e-9 for (judge, a, b), verdict in said.items())


def test_unknown_members_and_strategies_are_said(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swarm", "2+2?", "--model", str(tiny), "--member", "nobody"]) != 0
    assert "nobody" in capsys.readouterr().err
    assert main(["swarm", "2+2?", "--model", str(tiny), "--strategy", "best"]) != 0
    assert "expected one of swarm, believed" in capsys.readouterr().err
