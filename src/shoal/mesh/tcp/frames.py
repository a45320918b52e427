"""The bytes of many streams on one connection.

    frame = kind, 1 byte | value, 3 bytes | stream, 4 bytes | payload

    kind    value                stream        payload
    OPEN    priority + 2^23      a new one     -
    DATA    size of the payload  which one     bytes of the stream
    FINISH  -                    which one     -
    RESET   -                    which one     -
    CREDIT  bytes more           which one     -
    PING    -                    any number    -           answered by PONG with the same number
    PONG    -                    the number    -
    CLOSE   size of the payload  -             why, UTF-8

The dialer's streams have odd numbers, the acceptor's even ones, each rising.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from shoal.core.errors import PeerFault

OPEN, DATA, FINISH, RESET, CREDIT, PING, PONG, CLOSE = range(8)
HEADER_BYTES = 8
MAX_VALUE = 2**24 - 1
PAYLOAD_BYTES = 65_536 - HEADER_BYTES
"""Of one DATA frame as we write it: with its header four TLS records exactly."""
MAX_REASON_BYTES = 800
PRIORITY_ZERO = 2**23
_HEADER = struct.Struct(">II")

Frame = tuple[int, int, int, memoryview]
"""(kind, value, stream, payload). A DATA frame may come in pieces, each with its own payload."""


def header(kind: int, value: int, stream: int) -> bytes:
    return _HEADER.pack(kind << 24 | value, stream)


class Parser:
    """Bytes in any portions in, frames out; keeps at most a header or a reason."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._stream = 0
        self._missing = 0

    def feed(self, data: memoryview) -> Iterator[Frame]:
        """The frames that `data` completes; their payloads are views into it. PeerFault for an unknown kind."""
        position = 0
        while position < len(data):
            if self._missing:
                payload = data[position : position + self._missing]
                self._missing -= len(payload)
                position += len(payload)
                yield DATA, len(payload), self._stream, payload
                continue
            if not self._kept and len(data) - position >= HEADER_BYTES:
                first, stream = _HEADER.unpack_from(data, position)
                position += HEADER_BYTES
            else:
                part = data[position : position + HEADER_BYTES - len(self._kept)]
                position += len(part)
                self._kept += part
                if len(self._kept) < HEADER_BYTES:
                    return
                first, stream = _HEADER.unpack(self._kept)
                self._kept.clear()
            kind, value = first >> 24, first & MAX_VALUE
            if kind == DATA:
                self._stream, self._missing = stream, value
            elif kind == CLOSE:
                yield CLOSE, value, stream, data[position : position + min(value, MAX_REASON_BYTES)]
                return
            elif kind < CLOSE:
                yield kind, value, stream, data[:0]
            else:
                raise PeerFault(f"expected a frame of kind 0 to {CLOSE}, found {kind}")
