"""What is said about blobs, and the one function that reads each message.

method            request       reply
content.manifest  [id]          the manifest (`manifest.parse_manifest`)
content.have      [id]          one bit for each piece, first piece in the highest bit of the first byte
content.piece     [id, number]  the piece itself
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.mesh import parse
from shoal.mesh.content.manifest import ID_BYTES, MAX_CHUNKS

MAX_REQUEST = 256

Data = bytes | memoryview


def blob_bytes(blob: bytes) -> bytes:
    return encode([blob])


def parse_blob(data: Data) -> bytes:
    return parse.octets(parse.row(parse.message(data, MAX_REQUEST), 1)[0], ID_BYTES, ID_BYTES)


def piece_bytes(blob: bytes, piece: int) -> bytes:
    return encode([blob, piece])


def parse_piece(data: Data) -> tuple[bytes, int]:
    blob, piece = parse.row(parse.message(data, MAX_REQUEST), 2)
    return parse.octets(blob, ID_BYTES, ID_BYTES), parse.integer(piece, 0, MAX_CHUNKS)


def have_bytes(pieces: Iterable[int], count: int) -> bytes:
    bits = np.zeros(count, dtype=np.uint8)
    bits[list(pieces)] = 1
    return np.packbits(bits).tobytes()


def parse_have(data: Data, count: int) -> set[int]:
    """PeerFault unless it is of a blob of `count` pieces."""
    if len(data) != (count + 7) // 8:
        raise PeerFault(f"expected {(count + 7) // 8} bytes for {count} pieces, found {len(data)}")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    if bits[count:].any():
        raise PeerFault("expected no bits after the last piece")
    return {int(piece) for piece in np.flatnonzero(bits[:count])}
