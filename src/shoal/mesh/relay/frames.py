"""The wire of iroh-relay v1 and v2: one frame is one binary WebSocket message, its first byte says what it is.

    challenge  0 | 16 random bytes                              relay to client
    auth       1 | 32 key | 0x40 | 64 signature                 client to relay
    confirms   2                                                relay to client
    denies     3 | length | reason                              relay to client
    datagram   4 | 32 key of the receiver | ecn | packet        client to relay; 5 with a segment size: several
    datagram   6 | 32 key of the sender   | ecn | packet        relay to client; 7 likewise
    gone       8 | 32 key                                       relay to client: a sender has left
    ping, pong 9, 10 | 8 bytes                                  both ways
    restarting 12 | u32 ms until reconnecting | u32 ms to try   relay to client
    status     13 | 1: the same key has connected again         relay to client, v2

Source: iroh-relay/src/protos/{common,handshake,relay}.rs of https://github.com/n0-computer/iroh.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from shoal.core.errors import PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.mesh.relay.config import MAX_PACKET_BYTES

VERSIONS = ("iroh-relay-v2", "iroh-relay-v1")
CHALLENGE_BYTES = 16
KEY_BYTES = 32
PURPOSE = "iroh-relay handshake v1 challenge signature"
AUTH_BYTES = 1 + KEY_BYTES + 1 + 64
MAX_FRAME_BYTES = 1 + KEY_BYTES + 3 + MAX_PACKET_BYTES

CONFIRMS = b"\x02"
SAME_KEY = b"\x0d\x01"


@dataclass(frozen=True, slots=True)
class Datagram:
    """Packets for one peer; `rest` (ecn, segment size where `kind` is 5, contents) is never looked into."""

    kind: int
    to: bytes
    rest: memoryview


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    payload: bytes


Frame = Datagram | Ping | Pong


def parse(data: bytes | str) -> Frame:
    """The frame of an authenticated client, or PeerFault."""
    if isinstance(data, str) or not data:
        raise PeerFault("relay: expected a binary frame, found text or nothing")
    kind, size = data[0], len(data)
    if kind in (4, 5) and 1 + KEY_BYTES + (1 if kind == 4 else 3) <= size <= MAX_FRAME_BYTES:
        return Datagram(kind, data[1 : 1 + KEY_BYTES], memoryview(data)[1 + KEY_BYTES :])
    if kind in (9, 10) and size == 9:
        return Ping(data[1:]) if kind == 9 else Pong(data[1:])
    raise PeerFault(f"relay: a frame of type {kind} and {size} bytes means nothing here")


def parse_auth(data: bytes | str, challenge: bytes) -> bytes:
    """The 32-byte key that signed `challenge`, or PeerFault."""
    if isinstance(data, str) or len(data) != AUTH_BYTES or data[0] != 1 or data[1 + KEY_BYTES] != 64:
        raise PeerFault("relay: expected a key and its signature of the challenge")
    key = data[1 : 1 + KEY_BYTES]
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(data[-64:], blake3_digest(PURPOSE, challenge))
    except (InvalidSignature, ValueError) as error:
        raise PeerFault("relay: the challenge was not signed by the key given") from error
    return key


def challenge_of(nonce: bytes) -> bytes:
    return b"\x00" + nonce


def denies(reason: str) -> bytes:
    text = reason.encode()[:100]
    return b"\x03" + bytes([len(text)]) + text


def delivery(sender: bytes, sent: Datagram) -> bytes:
    return b"".join((bytes([sent.kind + 2]), sender, sent.rest))


def gone(peer: bytes) -> bytes:
    return b"\x08" + peer


def pong(ping: Ping) -> bytes:
    return b"\x0a" + ping.payload


def restarting(reconnect_ms: int, try_ms: int) -> bytes:
    return struct.pack(">BII", 12, reconnect_ms, try_ms)
