"""Strangers' bytes: every bit of a proof counts, and the parser gives a typed value or a refusal, soon."""

from __future__ import annotations

import resource
import time
import tracemalloc
from typing import Any

import pytest
from forger import forge
from hypothesis import given, settings
from hypothesis import strategies as st
from statements import told, two_layers, used

from shoal.core.encoding import decode, encode
from shoal.proof.plan import make_plan
from shoal.proof.proofs import Proof, from_bytes, most_bytes, to_bytes
from shoal.proof.rejected import ProofRejected
from shoal.proof.verifier import verify

SMALL = two_layers()
PROOF = forge(told(SMALL), used(SMALL))
PLAN = make_plan(SMALL.circuit, commits_weights=False)


def refused(proof: bytes) -> bool:
    try:
        verify(SMALL.circuit, SMALL.public, proof, weights=SMALL.weights)
    except ProofRejected:
        return True
    return False


def flipped(at: int, mask: int) -> bytes:
    return PROOF[:at] + bytes([PROOF[at] ^ mask]) + PROOF[at + 1 :]


def test_every_byte_counts() -> None:
    """One bit of each, another one from byte to byte."""
    assert not refused(PROOF)
    assert [at for at in range(len(PROOF)) if not refused(flipped(at, 1 << at % 8))] == []


def test_every_bit_counts() -> None:
    """All bits of one byte in eighty."""
    assert [
        (at, bit) for at in range(0, len(PROOF), 80) for bit in range(8) if not refused(flipped(at, 1 << bit))
    ] == []


def test_a_byte_more_or_less() -> None:
    for at in range(0, len(PROOF), 50):
        assert refused(PROOF[:at] + PROOF[at + 1 :])
        assert refused(PROOF[:at] + b"\0" + PROOF[at:])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=64) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=12,
)


def parsed(data: bytes) -> Proof | None:
    try:
        return from_bytes(data, SMALL.circuit, PLAN)
    except ProofRejected:
        return None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(["version", "root", "fractions", "identities", "opened"]), VALUES, st.data())
def test_any_value_in_any_place(field: str, value: Any, data: st.DataObject) -> None:
    """Whatever is parsed is written back to the same bytes."""
    whole = decode(PROOF)
    group = whole[field]
    if isinstance(group, list) and group and data.draw(st.booleans()):
        group[data.draw(st.integers(0, len(group) - 1))] = value
    else:
        whole[field] = value
    sent = encode(whole)
    found = parsed(sent)
    assert found is None or to_bytes(found) == sent


def test_long_bytes_are_refused_before_they_are_decoded() -> None:
    """An array of many small numbers would become objects of fifty times its size."""
    assert len(PROOF) <= most_bytes(SMALL.circuit, PLAN)
    many = b"\x9a\x02\x00\x00\x00" + b"\x00" * (1 << 25)
    tracemalloc.start()
    before = time.process_time()
    with pytest.raises(ProofRejected, match="format: expected at most"):
        from_bytes(many, SMALL.circuit, PLAN)
    assert time.process_time() - before < 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("data", [None, 5, "text", [1, 2], memoryview(PROOF)])
def test_what_are_no_bytes(data: Any) -> None:
    assert refused(data)


def test_deep_and_wide_bytes_of_a_proofs_size() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = most_bytes(SMALL.circuit, PLAN) - 16
    for data in (
        b"\x81" * size,
        b"\xa1" * size,
        b"\x99\xff\xff" + b"\0" * (size - 3),
        b"\xd8\x18" * (size // 2),
    ):
        assert refused(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
