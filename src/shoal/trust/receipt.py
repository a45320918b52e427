"""Receipts as bytes: canonical, signed, and refused unless they are exactly what `write` writes.

The signature covers every other field. Whoever holds the bytes can check it with the public key alone.
"""

from __future__ import annotations

from dataclasses import replace

from shoal.core.decoding import compact, parse
from shoal.core.encoding import decode, encode
from shoal.core.errors import RemoteError
from shoal.core.receipt import RECEIPT_VERSION, Opening, Receipt
from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import PrivateKey, is_signature
from shoal.mesh.parse import count, many

PURPOSE = "shoal receipt v1"
_DIGEST = "shoal receipt digest v1"
MAX_RECEIPT_BYTES = 256 * 2**10
"""128 choices that four peers made in turn take 100 kB."""
MAX_OPENING_BYTES = 16 * 2**20
MAX_OPENING_VALUES = 2**20
"""A million tokens, about two seconds to read. An empty map is one byte, and 200 as objects."""
MAX_SHOWN = 1024
"""Outputs of an opening, and receipts of peers in it."""


def write_receipt(receipt: Receipt) -> bytes:
    """Canonical bytes; equal receipts have equal bytes."""
    return encode(compact(receipt))


def read_receipt(data: bytes) -> Receipt:
    """RemoteError for anything but what `write_receipt` writes. The signature is not looked at."""
    if len(data) > MAX_RECEIPT_BYTES:
        raise RemoteError(f"expected a receipt of at most {MAX_RECEIPT_BYTES} bytes, found {len(data)}")
    receipt = parse(Receipt, decode(data))
    if write_receipt(receipt) != data:
        raise RemoteError("expected a receipt in its one canonical form, found another")
    if receipt.version != RECEIPT_VERSION:
        raise RemoteError(
            f"expected a receipt of version {RECEIPT_VERSION}, found {receipt.version}; is shoal old here?"
        )
    return receipt


def write_opening(opening: Opening) -> bytes:
    return encode(compact(opening))


def read_opening(data: bytes) -> Opening:
    """RemoteError for anything but what `write_opening` writes."""
    if len(data) > MAX_OPENING_BYTES:
        raise RemoteError(f"expected an opening of at most {MAX_OPENING_BYTES} bytes, found {len(data)}")
    count(data, MAX_OPENING_VALUES)
    value = decode(data)
    if isinstance(value, dict):
        for name in ("outputs", "nested"):
            many(value.get(name, []), MAX_SHOWN)
    opening = parse(Opening, value)
    if write_opening(opening) != data:
        raise RemoteError("expected an opening in its one canonical form, found another")
    return opening


def sign(receipt: Receipt, key: PrivateKey) -> Receipt:
    """The receipt as this node's own."""
    receipt = replace(receipt, node=key.public, signature=b"")
    return replace(receipt, signature=key.sign(PURPOSE, write_receipt(receipt)))


def is_signed(receipt: Receipt) -> bool:
    """Whether `receipt.node` signed every field of it."""
    unsigned = write_receipt(replace(receipt, signature=b""))
    return is_signature(receipt.node, PURPOSE, unsigned, receipt.signature)


def receipt_digest(receipt: Receipt) -> bytes:
    """32 bytes that name this receipt, signature included."""
    return blake3_digest(_DIGEST, write_receipt(receipt))
