"""What the bytes of a link mean after the hello: frames, and one parser for each kind that carries more than bytes.

    frame  = length u32, kind u8, call u64, payload        (little-endian; length counts the payload)
    CALL   = timeout_ms u32 (0: none), priority i8, method length u8, key length u8, method, key, body
    OPEN   = the same, its body being credit u32: what the answering side may send before it is granted more
    DATA   = seq u32, body        seq counts a side's messages of one call from 0
    END    = count u32            messages this side sent in all
    CREDIT = bytes u32
    CANCEL = nothing; REPLY = body; ERROR = see `failures`

`call` is a number chosen by the side that calls; UP kinds are sent by it, DOWN kinds by the side that answers.

Rules that stay true in this file:
- every parser returns a typed value or raises PeerFault, in time linear in its input.
"""

from __future__ import annotations

import math
from struct import Struct, error
from typing import Final, NamedTuple

from shoal.core.errors import PeerFault
from shoal.mesh.carrier import Bytes

CALL: Final = 1
OPEN: Final = 2
CANCEL: Final = 3
REPLY: Final = 4
ERROR: Final = 5
UP_DATA: Final = 6
UP_END: Final = 7
UP_CREDIT: Final = 8
DOWN_DATA: Final = 9
DOWN_END: Final = 10
DOWN_CREDIT: Final = 11

BULK_KINDS: Final = frozenset((CALL, REPLY, UP_DATA, DOWN_DATA))
"""What may come over a bulk stream."""

HEADER: Final = Struct("<IBQ")
ASK: Final = Struct("<IbBB")
COUNT: Final = Struct("<I")

MAX_METHOD = 64
MAX_KEY = 64
MAX_TIMEOUT_MS = 2**32 - 1
HEAD_ROOM = ASK.size + MAX_METHOD + MAX_KEY
"""Bytes a frame may have beyond its message."""


class Ask(NamedTuple):
    """A call as it arrives. `timeout_s` is what was left when it was sent; None: no limit. `key` b"": none."""

    method: str
    timeout_s: float | None
    priority: int
    key: bytes
    body: memoryview


def ask_head(method: str, timeout_s: float, priority: int, key: bytes) -> bytes:
    """What precedes the body of CALL and OPEN. ValueError for what cannot be said."""
    name = method.encode()
    if not 0 < len(name) <= MAX_METHOD or len(key) > MAX_KEY or not -128 <= priority <= 127:
        raise ValueError(
            f"method of 1 to 64 bytes, key of at most 64, priority ±127: {method!r}, {len(key)}, {priority}"
        )
    millis = 0 if math.isinf(timeout_s) else min(max(1, math.ceil(timeout_s * 1e3)), MAX_TIMEOUT_MS)
    return ASK.pack(millis, priority, len(name), len(key)) + name + key


def parse_ask(payload: Bytes) -> Ask:
    """The call in a CALL or OPEN."""
    view = memoryview(payload)
    try:
        millis, priority, method_size, key_size = ASK.unpack_from(view)
        key_at = ASK.size + method_size
        body_at = key_at + key_size
        method = str(view[ASK.size : key_at], "utf-8")
    except (error, UnicodeDecodeError) as problem:
        raise PeerFault(f"expected a call, found {view.nbytes} bytes that are none: {problem}") from problem
    if not 0 < method_size <= MAX_METHOD or key_size > MAX_KEY or body_at > view.nbytes:
        raise PeerFault(f"expected a call's name and key within limits, found {method_size} and {key_size} bytes")
    return Ask(method, millis / 1e3 if millis else None, priority, bytes(view[key_at:body_at]), view[body_at:])


def parse_data(payload: Bytes) -> tuple[int, memoryview]:
    """(seq, message) of a DATA."""
    view = memoryview(payload)
    if view.nbytes < COUNT.size:
        raise PeerFault(f"expected a numbered message, found {view.nbytes} bytes")
    return COUNT.unpack_from(view)[0], view[COUNT.size :]


def parse_count(payload: Bytes) -> int:
    """The number in END, CREDIT, and in the body of OPEN."""
    if len(payload) != COUNT.size:
        raise PeerFault(f"expected {COUNT.size} bytes, found {len(payload)}")
    number: int = COUNT.unpack(payload)[0]
    return number


def parse_nothing(payload: Bytes) -> None:
    """The payload of CANCEL."""
    if len(payload):
        raise PeerFault(f"expected no payload, found {len(payload)} bytes")
