"""Proves a forward pass, checks one, or tries to forge one: each in a process of its own, for bench/proof_lm.py.

    python proof_lm_worker.py prove | verify | forge FOLDER [--committed] [--prompt TOKEN ...]

FOLDER holds the graph; `prove` adds the answer (and the root), `verify` and `forge` read it, without the weights if
they are committed. The last line is JSON. Imports nothing that the prover, or the verifier, would not need.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.phases import Clock, Row, peak_gb
from shoal.proof import bits, bounds, claims, ligero, logup, lookup_prover, opening, prover, statement
from shoal.proof.circuit import Circuit
from shoal.proof.graph import store
from shoal.proof.lower.lower import Lowered, lower
from shoal.proof.rejected import ProofRejected
from shoal.proof.transformer.forward import Forward, from_bytes, prove_forward, verify_forward
from shoal.proof.weights import commit_weights

STEPS: tuple[tuple[str, Any, str], ...] = (
    ("ranges", bounds, "check_bounds"),
    ("statement", statement, "begin"),
    ("rows of lookups", lookup_prover, "rows_of_lookups"),
    ("commitment", prover, "_commit"),
    ("leaves", lookup_prover, "leaves"),
    ("tree of fractions", prover, "prove_fractions"),
    ("leaf claims", logup, "leaf_claims"),
    ("identities", prover, "prove_identities"),
    ("public claims", claims, "settle"),
    ("opening: sumcheck", opening, "prove_opening"),
    ("opening: columns", ligero, "open_at"),
)
"""What `prover.prove` calls, one after the other."""


def prove_step(folder: Path, tokens: Sequence[int], is_committed: bool) -> Row:
    """Proves the graph on these tokens."""
    clock = Clock()
    with clock.phase("read graph"):
        graph = store.load(folder)
    with clock.phase("lower"):
        model = lower(graph)
    committed = None
    if is_committed:
        with clock.phase("commit to weights"):
            committed = commit_weights(model.circuit, model.weights)
        (folder / "root").write_bytes(committed.root)
    for name, module, function in STEPS:
        clock.watch(module, function, name)
    with clock.phase("witness and proof"):
        forward = prove_forward(model, tokens, committed)
    (folder / "answer").write_bytes(forward.to_bytes())
    return {"rows": clock.rows, "proof_bytes": len(forward.proof), **sizes(model.circuit)}


def verify_step(folder: Path, is_committed: bool) -> Row:
    """Checks the answer."""
    clock = Clock()
    root = (folder / "root").read_bytes() if is_committed else None
    with clock.phase("read graph"):
        graph = store.load(folder, with_weights=not is_committed)
    with clock.phase("lower"):
        model = lower(graph)
    with clock.phase("check"):
        forward = from_bytes((folder / "answer").read_bytes())
        found = verify_forward(model, forward, root)
    return {"rows": clock.rows, "bits": found.bits_proven}


def forge_step(folder: Path, is_committed: bool) -> Row:
    """How many forgeries of the answer the verifier rejects."""
    root = (folder / "root").read_bytes() if is_committed else None
    model = lower(store.load(folder, with_weights=not is_committed))
    forged = forgeries(from_bytes((folder / "answer").read_bytes()))
    return {"rows": [], "forged": len(forged), "rejected": sum(is_rejected(model, one, root) for one in forged)}


def forgeries(forward: Forward) -> list[Forward]:
    """Another prompt, a logit off by one, another likeliest token, one bit of the proof."""
    near, other = forward.logits.copy(), forward.logits.copy()
    near[forward.next_token] -= 1
    other[(forward.next_token + 1) % len(other)] = forward.logits.max() + 1
    bent = bytearray(forward.proof)
    bent[len(bent) // 2] ^= 1
    first = (forward.tokens[0] + 1) % len(forward.logits)
    tokens = (first, *forward.tokens[1:])
    return [replace(forward, tokens=tokens), replace(forward, logits=near), replace(forward, logits=other),
            replace(forward, proof=bytes(bent))]  # fmt: skip


def is_rejected(model: Lowered, forged: Forward, root: bytes | None) -> bool:
    try:
        verify_forward(model, forged, root)
    except ProofRejected:
        return True
    return False


def sizes(circuit: Circuit) -> Row:
    committed = sum(int(np.prod(s.shape)) for s in circuit.sources if s.kind == "witness")
    lookups = sum(int(np.prod(lookup.space)) for lookup in circuit.lookups)
    return {"lookups": lookups, "leaves": bits.num_leaves(circuit), "committed": committed,
            "identities": len(circuit.identities)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("step", choices=("prove", "verify", "forge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--committed", action="store_true")
    parser.add_argument("--prompt", type=int, nargs="+", default=())
    given = parser.parse_args()
    if given.step == "prove":
        found = prove_step(given.folder, given.prompt, given.committed)
    else:
        found = (verify_step if given.step == "verify" else forge_step)(given.folder, given.committed)
    print(json.dumps({**found, "cpu_s": time.process_time(), "peak_gb": peak_gb()}))


if __name__ == "__main__":
    main()
