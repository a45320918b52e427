"""Bytes of a proof: one encoding, every length from the circuit, and nothing but ProofRejected for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.encoding import decode, encode
from shoal.proof.fakes import dense, rounds_apart
from shoal.proof.plan import make_plan
from shoal.proof.proofs import from_bytes, to_bytes
from shoal.proof.prover import prove
from shoal.proof.rejected import ProofRejected
from shoal.proof.scalars import P
from shoal.proof.verifier import verify

EXAMPLE = dense()
PROOF = prove(EXAMPLE.circuit, EXAMPLE.weights, EXAMPLE.public, EXAMPLE.witness)
PLAN = make_plan(EXAMPLE.circuit, commits_weights=False)


def is_rejected(proof: bytes) -> str:
    """The check that found out."""
    with pytest.raises(ProofRejected) as caught:
        verify(EXAMPLE.circuit, EXAMPLE.public, proof, weights=EXAMPLE.weights)
    return caught.value.check


def with_change(change: Callable[[dict[str, Any]], object]) -> bytes:
    value = decode(PROOF)
    change(value)
    return encode(value)


def words(blob: bytes) -> np.ndarray:
    return np.frombuffer(blob, "<u8").copy()


def test_bytes_are_parsed_and_written_back() -> None:
    assert to_bytes(from_bytes(PROOF, EXAMPLE.circuit, PLAN)) == PROOF
    assert prove(EXAMPLE.circuit, EXAMPLE.weights, EXAMPLE.public, EXAMPLE.witness) == PROOF  # no randomness of its own


def test_other_lengths() -> None:
    for proof in (
        b"",
        PROOF[:-1],
        PROOF + b"\0",
        PROOF[1:],
        PROOF[: len(PROOF) // 2],
        b"\xa0",
        b"\xf6",
        bytes(1 << 12),
    ):
        assert is_rejected(proof) == "format"


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "version": lambda v: v.update(version=2),
    "version as a bool": lambda v: v.update(version=True),
    "unknown field": lambda v: v.update(more=1),
    "missing field": lambda v: v.pop("opened"),
    "short root": lambda v: v.update(root=v["root"][:-1]),
    "no root": lambda v: v.update(root=b""),
    "text for bytes": lambda v: v.update(root="x" * 32),
    "no lookups": lambda v: v.update(fractions=[]),
    "one more layer": lambda v: v["fractions"].__setitem__(0, v["fractions"][0] + bytes(64)),
    "one layer less": lambda v: v["fractions"].__setitem__(0, v["fractions"][0][:-64]),
    "a word less": lambda v: v["identities"].__setitem__(1, v["identities"][1][:-8]),
    "a map for an array": lambda v: v.update(identities={}),
    "a number for bytes": lambda v: v["identities"].__setitem__(0, 5),
    "nothing opened": lambda v: v.update(opened=[]),
    "opened twice": lambda v: v.update(opened=v["opened"] * 2),
    "a piece of a digest": lambda v: v["opened"][0].__setitem__(4, v["opened"][0][4][:-1]),
    "other columns": lambda v: v["opened"][0].__setitem__(3, v["opened"][0][3] + bytes(8)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_shapes(name: str) -> None:
    assert is_rejected(with_change(CHANGES[name])) == "format"


@pytest.mark.parametrize("part", ["fractions", "identities", "opened"])
def test_a_word_has_one_encoding(part: str) -> None:
    """v and v + p are the same element; only v is accepted."""

    def change(value: dict[str, Any]) -> None:
        group = value[part][0] if part == "opened" else value[part]
        for at, blob in enumerate(group[:4]):
            found = words(blob)
            small = np.flatnonzero(found < 2**64 - P)
            if len(small):
                found[small[0]] += np.uint64(P)
                group[at] = found.tobytes()
                return
        found = words(group[0])
        found[0] = np.uint64(P)
        group[0] = found.tobytes()

    assert is_rejected(with_change(change)) == "format"


def test_every_part_is_bound() -> None:
    """One bit of each blob, at its ends and in the middle."""
    for part in ("root", "fractions", "identities", "opened"):
        value = decode(PROOF)
        blobs = [value[part]] if part == "root" else value[part][0] if part == "opened" else value[part]
        for number, blob in enumerate(blobs):
            for at in (0, len(blob) // 2, len(blob) - 8):
                changed = decode(PROOF)
                flipped = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
                if part == "root":
                    changed["root"] = flipped
                else:
                    group = changed[part][0] if part == "opened" else changed[part]
                    group[number] = flipped
                assert is_rejected(encode(changed)) != ""


def test_another_circuits_proof() -> None:
    other = rounds_apart()
    proof = prove(other.circuit, other.weights, other.public, other.witness)
    assert is_rejected(proof) == "format"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(PROOF) - 1))
    bits = data.draw(st.integers(1, 255))
    is_rejected(PROOF[:at] + bytes([PROOF[at] ^ bits]) + PROOF[at + 1 :])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes(proof: bytes) -> None:
    assert is_rejected(proof) == "format"
