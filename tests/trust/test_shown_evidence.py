"""`shoal check` by proofs and by a quote, from the command line: who shows what, exit codes, words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attest_makers import NOW, Nvidia, make_nvidia
from receipt_makers import KEY, answer

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.receipt import Evidence, ModelIdentity, Signed
from shoal.core.request import Message, Request, Sampling
from shoal.core.usage import Usage
from shoal.models.checkpoint import open_checkpoint
from shoal.models.digest import hash_weights
from shoal.models.tiny import TinyShape
from shoal.models.tiny_file import write_tiny
from shoal.node.cli import main
from shoal.proof.transformer.reference import Reference
from shoal.trust.attest.binding import report_data
from shoal.trust.attest.claims import Evidence as AttestedEvidence
from shoal.trust.attest.nvidia import thumbprint
from shoal.trust.attest.policy import AttestationPolicy
from shoal.trust.attestation_check import AttestationCheck
from shoal.trust.check import subjects
from shoal.trust.file import to_json
from shoal.trust.forward_model import floats_of
from shoal.trust.seal import Sealer
from shoal.trust.shelf import Shelf

SMALL = TinyShape(hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=32, ffn_size=32)
PROMPT = (65, 66, 67, 68)
RECORDED = Path(__file__).parents[1] / "data" / "attest"
NONCE = bytes(range(32))


def signed(folder: Path, tokens: tuple[int, ...], model: ModelIdentity) -> Signed:
    """A greedy answer of these tokens, signed by KEY."""

    async def engine(request: Request) -> AsyncIterator[Chunk]:
        seen = Evidence(PROMPT, tokens, 0, 0, (b"f" * 9 * len(tokens),))
        yield Chunk(0, "x", tokens, (), (), "stop", Usage(len(PROMPT), len(tokens)), evidence=seen)

    sealer = Sealer(KEY, Shelf(folder / "shelf"), VirtualClock(), lambda request: model)
    asked = Request("chatcmpl-1", "tiny", (Message("user", "x"),), Sampling(temperature=0.0), receipt=True)
    last = answer(sealer.sealed(engine), asked)[-1]
    assert last.receipt is not None
    return Signed(last.receipt, last.opening)


def written(file: Path, shown: Signed) -> Path:
    file.write_text(json.dumps(to_json(shown)))
    return file


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m.gguf; its greedy answer, one with a lie, one of another model; graphs g4, g5, proofs p0, p1."""
    folder = tmp_path_factory.mktemp("shown")
    write_tiny(folder / "m.gguf", SMALL, 3, "llama")
    floats = floats_of(open_checkpoint(folder / "m.gguf"))
    reference, tokens = Reference(floats.config, floats.weights), list[int]()
    for _ in range(2):
        logits = reference.logits([*PROMPT, *tokens])
        tokens.append(int(np.argmax(logits)))
    model = ModelIdentity("tiny", bytes.fromhex(hash_weights(folder / "m.gguf")))
    written(folder / "answer", signed(folder, (tokens[0], tokens[1]), model))
    written(folder / "lie", signed(folder, (tokens[0], int(np.argmin(logits))), model))
    written(folder / "other", signed(folder, (tokens[0], tokens[1]), replace(model, weights=b"o" * 32)))
    for position, length in enumerate((4, 5)):
        graph = ["--tokens", str(length), "--like", f"{folder}/answer", "--out", f"{folder}/g{length}"]
        assert main(["prove", "graph", f"{folder}/m.gguf", *graph]) == 0
        assert main([*prove(folder, length, position), "--out", f"{folder}/p{position}"]) == 0
    return folder


def prove(work: Path, length: int, position: int, file: str = "answer") -> list[str]:
    return ["prove", "answer", f"{work}/{file}", "--graph", f"{work}/g{length}", "--position", str(position)]


def check(work: Path, file: str, *proofs: str) -> int:
    shown = [part for proof in proofs for part in ("--proof", f"{work}/{proof}")]
    graphs = ["--graph", f"{work}/g4", "--graph", f"{work}/g5"]
    return main(["check", f"{work}/{file}", "--tier", "proof", *graphs, *shown, "--home", str(work)])


def test_proven_tokens_pass_and_the_others_are_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(work, "answer", "p0", "p1") == 0
    told = capsys.readouterr()
    assert "all 2 tokens are proven to be the likeliest" in told.out
    assert json.loads((work / "g4" / "about.json").read_text())["graph"] in told.err
    assert check(work, "answer", "p0") == 3
    assert "1 of 2 tokens are proven (positions 0); without a proof: 1 (positions 1)" in capsys.readouterr().out


def test_a_token_the_proof_contradicts_fails_and_another_model_is_unsure(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(work, "lie", "p0", "p1") == 1
    assert "position 1" in capsys.readouterr().out
    assert check(work, "other", "p0", "p1") == 3
    assert "proofs are of another model" in capsys.readouterr().out
    assert main([*prove(work, 5, 1, "lie"), "--out", f"{work}/honest"]) == 0
    assert "does not show that it is right" in capsys.readouterr().err


def test_a_false_proof_is_unsure_and_what_is_none_unusable(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = (work / "p0").read_bytes()
    (work / "false").write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
    (work / "none").write_bytes(b"no proof")
    assert check(work, "answer", "false", "p1") == 3
    assert "its proof is false" in capsys.readouterr().out
    assert check(work, "answer", "none") == 2
    about = (work / "g4" / "about.json").read_text()
    try:
        (work / "g4" / "about.json").write_text((work / "g5" / "about.json").read_text().replace(": 5", ": 4"))
        assert check(work, "answer", "p0") == 2
    finally:
        (work / "g4" / "about.json").write_text(about)


def test_what_cannot_be_asked_is_wrong_usage(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(work / "answer")
    proofs = ["check", file, "--tier", "proof", "--graph", f"{work}/g4"]
    wrong = {
        "--graph and --proof": proofs,
        "says nothing to": [*proofs, "--proof", f"{work}/p0", "--nonce", "00"],
        "needs --quote and --nonce": ["check", file, "--tier", "attestation"],
        "it can by: fingerprint, proof, attestation": ["check", file, "--tier", "distribution"],
        "draws limits for": ["check", "--calibrate", *["--tier", "attestation", "--quote", file, "--nonce", "00"]],
        "says nothing to --tier fingerprint": ["check", "--calibrate", "--quote", file],
        "expected a hardware quote": ["check", file, "--tier", "attestation", "--quote", file, "--nonce", "00" * 32],
        "--tokens 5": [*prove(work, 4, 1), "--out", f"{work}/x"],
        "no token at position 2": [*prove(work, 4, 2), "--out", f"{work}/x"],
        "about.json": [*prove(work, 9, 0), "--out", f"{work}/x"],
        "expected 99 tokens": [
            "prove",
            "graph",
            f"{work}/m.gguf",
            "--tokens",
            "99",
            "--like",
            file,
            "--out",
            work.name,
        ],
    }
    for word, line in wrong.items():
        assert main(line) == 2, word
        assert word in capsys.readouterr().err


# ---- attestation


@pytest.fixture(scope="module")
def nvidia() -> Nvidia:
    return make_nvidia()


def attested(folder: Path, nvidia: Nvidia, shown: Signed, *more: str) -> int:
    """`shoal check` of an answer by a quote that binds weights b"w", KEY and NONCE."""
    (folder / "quote").write_bytes(nvidia.answer(report_data(b"w" * 32, KEY.public, NONCE)[:32]))
    (folder / "keys").write_bytes(nvidia.collateral)
    given = ["--quote", f"{folder}/quote", "--collateral", f"{folder}/keys", "--nvidia-key", thumbprint(nvidia.jwk)]
    at = ["--at", str(np.datetime64(NOW, "s")), "--home", str(folder)]
    file = str(written(folder / "answer", shown))
    more = more or ("--nonce", NONCE.hex(), "--allow", "hwmodel=GH100")
    return main(["check", file, "--tier", "attestation", *given, *at, *more])


def test_a_quote_binds_the_receipts_key_and_weights(
    tmp_path: Path, nvidia: Nvidia, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ModelIdentity("tiny", b"w" * 32)
    shown = signed(tmp_path, (1, 2), model)
    assert attested(tmp_path, nvidia, shown) == 0
    assert "passed the attestation check: a genuine nvidia platform" in capsys.readouterr().out
    assert attested(tmp_path, nvidia, shown, "--nonce", "11" * 32) == 1
    assert "a replay, or made for somebody else" in capsys.readouterr().out
    assert attested(tmp_path, nvidia, shown, "--nonce", NONCE.hex()) == 3, "nothing is on the allow-list"
    assert attested(tmp_path, nvidia, signed(tmp_path, (1, 2), replace(model, weights=b"x" * 32))) == 1
    assert attested(tmp_path, nvidia, signed(tmp_path, (1, 2), replace(model, adapter=b"a" * 32))) == 3
    assert attested(tmp_path, nvidia, shown, "--nonce", "1") == 2


def test_a_quote_of_the_signer_of_another_part_is_unsure(tmp_path: Path, nvidia: Nvidia) -> None:
    shown = signed(tmp_path, (1, 2), ModelIdentity("tiny", b"w" * 32))
    (own,) = subjects(shown)
    peer = replace(own, receipt=replace(own.receipt, node=b"p" * 32))
    evidence = AttestedEvidence(nvidia.answer(report_data(b"w" * 32, KEY.public, NONCE)[:32]), nvidia.collateral)
    policy = AttestationPolicy(allowed=({"hwmodel": b"GH100"},), nvidia_keys=(thumbprint(nvidia.jwk),))
    for parts, outcome in (((own, peer), "unsure"), ((peer,), "fail")):
        verdict = asyncio.run(AttestationCheck(evidence, policy, NONCE, parts, NOW)(peer))
        assert verdict.outcome == outcome


def test_a_recorded_quote_of_another_machine_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "answer", signed(tmp_path, (1, 2), ModelIdentity("tiny", b"w" * 32)))
    quote = ["--quote", f"{RECORDED}/tdx_quote.bin", "--collateral", f"{RECORDED}/tdx_quote_collateral.json"]
    line = ["check", str(file), "--tier", "attestation", *quote, "--nonce", NONCE.hex(), "--home", str(tmp_path)]
    assert main([*line, "--at", "2025-07-01"]) == 1
    assert "report_data is not this model, node key and nonce" in capsys.readouterr().out
    assert main([*line, "--at", "2026-11-23"]) == 3, "the collateral is not of that time"
