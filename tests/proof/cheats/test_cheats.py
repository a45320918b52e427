"""Every false proof is refused, by a verifier that has the statement and the bytes alone, and by the second one."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from corpus import corpus, out_of_range
from forger import forge
from statements import count, public_alone, softmax, told, two_layers, used

import shoal
from shoal.proof import lookup_prover
from shoal.proof.claims import shapes_of
from shoal.proof.fakes import Arrays, Example, all_examples, dense
from shoal.proof.plain.places import Tensor
from shoal.proof.plain.verify import verify_plain
from shoal.proof.prover import prove
from shoal.proof.rejected import ProofRejected
from shoal.proof.satisfy import satisfies
from shoal.proof.verifier import verify
from shoal.proof.weights import commit_weights

CASES = corpus()
TRUE = {**all_examples(), "two layers": two_layers(), "softmax": softmax(), "public alone": public_alone()}
MODES = [(name, commits) for name, example in TRUE.items() for commits in sorted({False, bool(example.weights)})]

SCRIPT = """
import pickle, sys
from shoal.core.errors import ShoalError
from shoal.proof.verifier import verify
for circuit, public, weights, root, proof in pickle.load(open(sys.argv[1], "rb")):
    try:
        verify(circuit, public, proof, weights=weights, root=root)
        print("accepted")
    except ShoalError as error:
        print(getattr(error, "check", repr(error)))
assert False, "assertions are off"
"""


def test_a_verifier_alone(tmp_path: Path) -> None:
    """In one process, with assertions compiled away."""
    example = dense()
    honest = (example.circuit, example.public, example.weights, None, forge(told(example), used(example)))
    given = [honest, *((c.circuit, c.public, c.weights, c.root, c.proof) for c in CASES)]
    (tmp_path / "cases").write_bytes(pickle.dumps(given))
    paths = os.pathsep.join([str(Path(shoal.__file__).parent.parent), *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-O", "-c", SCRIPT, str(tmp_path / "cases")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    first, *found = done.stdout.splitlines()
    assert first == "accepted"
    assert dict(zip((c.name for c in CASES), found, strict=True)) == {c.name: c.check for c in CASES}


def test_the_second_verifier_refuses_them_all() -> None:
    for one in CASES:
        with pytest.raises(ProofRejected):
            verify_plain(one.circuit, one.public, one.proof, one.weights, one.root)


def counts_of(example: Example) -> Arrays:
    values = {**example.values, **example.circuit.constants}
    rows = lookup_prover.rows_of_lookups(example.circuit, shapes_of(example.circuit, example.public), values)
    return {**lookup_prover.multiplicities(example.circuit, rows)} if rows else {}


@pytest.mark.parametrize(("name", "commits"), MODES)
def test_true_proofs_by_both_provers_and_both_verifiers(name: str, commits: bool) -> None:
    """Two provers that share no arithmetic write the same bytes; two verifiers accept them."""
    example = TRUE[name]
    assert satisfies(example.circuit, example.values) is None
    committed = commit_weights(example.circuit, example.weights) if commits else None
    root, weights = (committed.root, None) if committed else (None, example.weights)
    proof = prove(example.circuit, example.weights, example.public, example.witness, committed)
    assert forge(told(example, root), used(example)) == proof
    verify(example.circuit, example.public, proof, weights=weights, root=root)
    verify_plain(example.circuit, example.public, proof, weights, root)
    mine, theirs = count(example.circuit, {**example.values, **example.circuit.constants}), counts_of(example)
    assert mine.keys() == theirs.keys()
    assert all((mine[key] == theirs[key]).all() for key in mine)


def test_a_count_and_the_count_plus_p_are_one_number() -> None:
    """Adding the prime to a multiplicity forges nothing: the committed words, and so the bytes, stay the same."""
    mine, name = used(dense()), "multiplicity of rest"
    counts = mine.witness[name]
    more = Tensor(counts.shape, [value + 0xFFFF_FFFF_0000_0001 for value in counts.flat])
    other = replace(mine, witness={**mine.witness, name: more})
    assert forge(told(dense()), other) == forge(told(dense()), mine)


def test_numbers_behind_the_committed_vector_are_nobodys() -> None:
    """The fill of the last row is free: another proof of the same true statement, and no help for a false one."""
    example = dense()
    proof = forge(told(example), used(example, tail=(5,)))
    assert proof != forge(told(example), used(example))
    verify(example.circuit, example.public, proof, weights=example.weights)
    verify_plain(example.circuit, example.public, proof, example.weights)
    wrong = out_of_range()
    with pytest.raises(ProofRejected, match="lookup sum"):
        verify(wrong.circuit, wrong.public, forge(told(wrong), used(wrong, tail=(5,))), weights=wrong.weights)
