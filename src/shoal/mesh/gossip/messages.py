"""What gossiping peers send, and the one function for each message that reads it.

method       request            reply
gossip.ping  claims             claims
gossip.tell  claims             nothing
gossip.ask   a peer, a timeout  whether it answered a ping
gossip.sync  marks, a limit     claims of what differs

Bounds: 12 claims and 32 kB, in a sync 512 and 256 kB. What does not fit is not sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shoal.core.encoding import encode
from shoal.mesh import parse
from shoal.mesh.gossip.claims import Claim, claim_row, parse_claim
from shoal.mesh.gossip.membership import MAX_CLAIMS, MAX_SYNC
from shoal.mesh.gossip.roster import BUCKETS, HASH_BYTES
from shoal.mesh.peer_id import PeerId

MAX_MESSAGE = 32 * 1024
MAX_SYNC_MESSAGE = 256 * 1024
MAX_TIMEOUT_S = 10.0

Data = bytes | bytearray | memoryview


def claims_bytes(claims: Iterable[Claim], max_bytes: int = MAX_MESSAGE) -> bytes:
    """As many of the claims, in order, as fit."""
    rows, left = [], max_bytes - 16
    for claim in claims:
        row = claim_row(claim)
        left -= len(encode(row))
        if left < 0:
            break
        rows.append(row)
    return encode(rows)


def parse_claims(data: Data) -> list[Claim]:
    return [parse_claim(row) for row in parse.many(parse.message(data, MAX_MESSAGE), MAX_CLAIMS)]


def parse_synced(data: Data) -> list[Claim]:
    return [parse_claim(row) for row in parse.many(parse.message(data, MAX_SYNC_MESSAGE), MAX_SYNC)]


def ask_bytes(peer: PeerId, timeout_s: float) -> bytes:
    return encode([peer.key, float(timeout_s)])


def parse_ask(data: Data) -> tuple[PeerId, float]:
    peer, timeout_s = parse.row(parse.message(data, MAX_MESSAGE), 2)
    return parse.peer_id(peer), parse.number(timeout_s, 0.001, MAX_TIMEOUT_S)


def asked_bytes(was_reached: bool) -> bytes:
    return encode([was_reached])


def parse_asked(data: Data) -> bool:
    return parse.flag(parse.row(parse.message(data, MAX_MESSAGE), 1)[0])


def sync_bytes(marks: Sequence[int], limit: int) -> bytes:
    return encode([b"".join(mark.to_bytes(HASH_BYTES, "big") for mark in marks), limit])


def parse_sync(data: Data) -> tuple[list[int], int]:
    marks, limit = parse.row(parse.message(data, MAX_MESSAGE), 2)
    size = BUCKETS * HASH_BYTES
    packed = parse.octets(marks, size, size)
    found = [int.from_bytes(packed[at : at + HASH_BYTES], "big") for at in range(0, size, HASH_BYTES)]
    return found, parse.integer(limit, 1, MAX_SYNC)
