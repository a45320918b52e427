"""Checks of answers by what somebody made for them: proven forward passes, a hardware quote. No model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.core.errors import BadConfig, ShoalError
from shoal.node.terminal import say

if TYPE_CHECKING:
    from shoal.proof.transformer.forward import Forward
    from shoal.trust.check import Checker, Subject
    from shoal.trust.file import Shown
    from shoal.trust.verdict import Tier

ALONE: tuple[Tier, ...] = ("fingerprint", "proof", "attestation")
"""Tiers that check a chat answer on one machine."""
MAX_PROOF_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Given:
    """What came with the answer, as options of `shoal check`."""

    graph: tuple[Path, ...] = ()
    proof: tuple[Path, ...] = ()
    quote: Path | None = None
    collateral: Path | None = None
    nonce: str | None = None
    allow: list[str] | None = None
    status: list[str] | None = None
    nvidia_key: list[str] | None = None
    at: str | None = None


NEEDED: dict[Tier, tuple[str, ...]] = {"proof": ("graph", "proof"), "attestation": ("quote", "nonce")}
TAKEN: dict[Tier, tuple[str, ...]] = {
    "proof": NEEDED["proof"],
    "attestation": (*NEEDED["attestation"], "collateral", "allow", "status", "nvidia_key", "at"),
}


def check_given(tier: Tier, given: Given) -> None:
    """BadConfig for an option that the tier needs and that is missing, or that says nothing to it."""
    for name in NEEDED.get(tier, ()):
        if not getattr(given, name):
            raise BadConfig(f"--{name}", f"--tier {tier} needs --{' and --'.join(NEEDED[tier])}")
    for field in fields(given):
        if getattr(given, field.name) and field.name not in TAKEN.get(tier, ()):
            raise BadConfig(f"--{field.name.replace('_', '-')}", f"says nothing to --tier {tier}")


def evidence_checker(home: Path, tier: Tier, given: Given, answers: Sequence[Shown]) -> Checker:
    """A checker for `tier`. BadConfig for files that cannot be used: then nothing was judged."""
    try:
        return _proofs(given) if tier == "proof" else _quote(home, given, _parts(answers))
    except BadConfig:
        raise
    except (ShoalError, OSError) as error:
        raise BadConfig(tier, str(error)) from error


def _parts(answers: Sequence[Shown]) -> list[Subject]:
    from shoal.trust.check import subjects

    return [part for one in answers if one.signed.opening is not None for part in subjects(one.signed)]


# ---- proof


def _proofs(given: Given) -> Checker:
    """Graphs are read only for lengths that there is a proof of: each takes as much memory as the model."""
    from shoal.trust.forward_store import load_forward, read_about
    from shoal.trust.proof_check import ProofCheck

    folders: dict[int, Path] = {}
    for folder in given.graph:
        about = read_about(folder)
        if folders.setdefault(about.tokens, folder) != folder:
            raise BadConfig(
                "--graph", f"expected one of {about.tokens} tokens, found {folders[about.tokens]} and {folder}"
            )
    passes = [_read_proof(file) for file in given.proof]
    lengths = folders.keys() & {len(one.tokens) for one in passes}
    loaded = [load_forward(folders[length]) for length in sorted(lengths or folders.keys())]
    weights = {about.weights for about, _ in loaded}
    if len(weights) > 1:
        raise BadConfig("--graph", f"expected graphs of one model, found {len(weights)}")
    for about, _ in loaded:
        say(f"graph {about.graph.hex()} of {about.tokens} tokens: its folder says that it was made from {about.model}")
    return ProofCheck(weights.pop(), {about.tokens: model for about, model in loaded}, passes)


def _read_proof(file: Path) -> Forward:
    from shoal.proof.rejected import ProofRejected
    from shoal.proof.transformer.forward import from_bytes

    with file.open("rb") as opened:
        data = opened.read(MAX_PROOF_BYTES + 1)
    if len(data) > MAX_PROOF_BYTES:
        raise BadConfig(str(file), f"expected a proof of at most {MAX_PROOF_BYTES} bytes, found more")
    try:
        return from_bytes(data)
    except ProofRejected as error:
        raise BadConfig(str(file), f"expected what `shoal prove answer` writes: {error}") from error


# ---- attestation


def _quote(home: Path, given: Given, subjects: Sequence[Subject]) -> Checker:
    from shoal.node.commands.attest import accepted, hex_bytes, read_evidence, seconds
    from shoal.trust.attest.claims import Rejected
    from shoal.trust.attestation_check import AttestationCheck

    assert given.quote is not None, "check_given saw it"
    nonce, policy = hex_bytes("--nonce", given.nonce or "", 32), accepted(given.allow, given.status, given.nvidia_key)
    try:
        evidence = read_evidence(home, given.quote, given.collateral)
    except Rejected as error:
        raise BadConfig("--quote", f"expected a hardware quote: {error}") from error
    return AttestationCheck(evidence, policy, nonce, subjects, seconds(given.at))
