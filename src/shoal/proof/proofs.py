"""Proofs as bytes: canonical CBOR of what the prover sent, parsed strictly.

Every length follows from the circuit; field elements are little-endian words below p. Bytes that differ in any way from
what a prover of this circuit writes are a ProofRejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.core.encoding import decode, encode
from shoal.core.errors import RemoteError
from shoal.crypto.merkle import DIGEST_BYTES
from shoal.proof import bits, field, identities
from shoal.proof.circuit import Circuit
from shoal.proof.gkr import FractionMessages
from shoal.proof.identity_verifier import IdentityMessages
from shoal.proof.ligero import Opening
from shoal.proof.opening import OpeningMessages
from shoal.proof.parameters import Parameters
from shoal.proof.plan import Plan
from shoal.proof.rejected import ProofRejected
from shoal.proof.scalars import Element
from shoal.proof.statement import VERSION

MOST_BYTES = 1 << 28
"""What files of proofs are read up to; `from_bytes` decodes no more than a proof of its circuit may have."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One commitment's part. share: what the combined claims' terms in it sum up to."""

    share: Element
    messages: OpeningMessages
    opening: Opening


@dataclass(frozen=True, slots=True)
class Proof:
    """root: of the witness, b"" without one. fractions: None without lookups. opened: in the plan's order."""

    root: bytes
    fractions: FractionMessages | None
    identities: IdentityMessages
    opened: tuple[Opened, ...]


def to_bytes(proof: Proof) -> bytes:
    fractions, own = proof.fractions, proof.identities
    return encode(
        {
            "version": VERSION,
            "root": proof.root,
            "fractions": [] if fractions is None else [_blob(fractions.sides), _blob(fractions.rounds)],
            "identities": [_blob(field.ext([own.output])), _blob(own.rounds), _blob(own.factors)],
            "opened": [_opened_plain(part) for part in proof.opened],
        }
    )


def from_bytes(data: bytes, circuit: Circuit, plan: Plan) -> Proof:
    """Raises ProofRejected for anything but a proof of this circuit's shape. Decodes nothing longer than those."""
    if not isinstance(data, bytes | bytearray) or len(data) > most_bytes(circuit, plan):
        found = f"{len(data)}" if isinstance(data, bytes | bytearray) else type(data).__name__
        raise _malformed(f"at most {most_bytes(circuit, plan)} bytes", found)
    try:
        value = decode(data)
    except RemoteError as error:
        raise ProofRejected("format", str(error)) from error
    check_fields(value)
    levels = bits.num_levels(circuit)
    fractions = _list(value["fractions"], 2 if levels else 0)
    own, opened = _list(value["identities"], 3), _list(value["opened"], len(plan.stores))
    num_products = sum(len(identity.pairs) for identity in circuit.identities)
    return Proof(
        _digest(value["root"], DIGEST_BYTES if plan.witness else 0),
        FractionMessages(_ext(fractions[0], levels, 4), _ext(fractions[1], levels * (levels - 1) // 2, 2))
        if levels
        else None,
        IdentityMessages(
            field.element(_ext(own[0], 1)[0]),
            _ext(own[1], identities.num_rounds(circuit), 3),
            _ext(own[2], num_products, 2),
        ),
        tuple(_opened(part, store.params) for part, store in zip(opened, plan.stores, strict=True)),
    )


def most_bytes(circuit: Circuit, plan: Plan) -> int:
    """No proof of this shape is longer: its words, as many digests as a tree may lack, and room for CBOR's heads."""
    levels = bits.num_levels(circuit)
    elements = 4 * levels + levels * (levels - 1) + 1 + 3 * identities.num_rounds(circuit)
    elements += 2 * sum(len(identity.pairs) for identity in circuit.identities)
    words, digests = 2 * elements, 1
    for params in (store.params for store in plan.stores):
        words += 2 * (2 + 2 * params.bits + params.columns) + params.queries * params.rows
        digests += params.queries * params.depth
    return 8 * words + DIGEST_BYTES * digests + 512


def check_fields(value: Any) -> None:
    """A map of exactly the fields of this version."""
    fields = {"version", "root", "fractions", "identities", "opened"}
    if type(value) is not dict or value.keys() != fields:
        raise _malformed(f"a map of {sorted(fields)}", type(value).__name__)
    if type(value["version"]) is not int or value["version"] != VERSION:
        raise _malformed(f"version {VERSION}", f"{value['version']!r:.40}")


def check_words(words: npt.NDArray[np.uint64]) -> None:
    """Every word is the one encoding of a field element."""
    if not field.is_canonical(words):
        raise _malformed("field elements below the modulus", "a greater word")


def _opened_plain(part: Opened) -> list[bytes]:
    ends, opening = field.ext([part.share, part.messages.value]), part.opening
    return [
        _blob(ends),
        _blob(part.messages.rounds),
        _blob(opening.row),
        _blob(opening.columns),
        b"".join(opening.digests),
    ]


def _opened(value: Any, params: Parameters) -> Opened:
    ends, rounds, row, columns, digests = _list(value, 5)
    share, last = _ext(ends, 2)
    path = _digest(digests, None)
    return Opened(
        field.element(share),
        OpeningMessages(_ext(rounds, params.bits, 2), field.element(last)),
        Opening(
            _ext(row, params.columns),
            _words(columns, params.queries, params.rows),
            tuple(path[at : at + DIGEST_BYTES] for at in range(0, len(path), DIGEST_BYTES)),
        ),
    )


def _blob(words: npt.NDArray[np.uint64]) -> bytes:
    return np.ascontiguousarray(words, "<u8").tobytes()


def _list(value: Any, length: int) -> list[Any]:
    if type(value) is not list or len(value) != length:
        raise _malformed(f"an array of {length}", f"{type(value).__name__}")
    return value


def _digest(value: Any, length: int | None) -> bytes:
    """Bytes of this length, or of any number of digests."""
    if type(value) is not bytes or (len(value) % DIGEST_BYTES if length is None else len(value) != length):
        raise _malformed(f"{'digests' if length is None else length} in bytes", f"{value!r:.40}")
    return value


def _ext(value: Any, *shape: int) -> field.Ext:
    return _words(value, *shape, 2)


def _words(value: Any, *shape: int) -> npt.NDArray[np.uint64]:
    wanted = 8 * int(np.prod(shape, dtype=np.int64))
    if type(value) is not bytes or len(value) != wanted:
        raise _malformed(f"{wanted} bytes for {shape} words", f"{type(value).__name__} {value!r:.20}")
    words = np.frombuffer(value, "<u8").astype(np.uint64).reshape(shape)
    check_words(words)
    return words


def _malformed(expected: str, found: str) -> ProofRejected:
    return ProofRejected("format", f"expected {expected}, found {found}")
