"""Bytes into frames, as they arrive. No I/O.

Rules that stay true in this file:
- feeding byte by byte gives the same frames as feeding all at once;
- memory is one frame of at most `limit` bytes plus what one `feed` completes, and is touched only as bytes arrive:
  announcing 256 MB costs nobody 256 MB;
- time is linear in the bytes fed.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from shoal.core.errors import PeerFault
from shoal.mesh.carrier import Bytes
from shoal.mesh.rpc.wire import HEADER

Frame = tuple[int, int, Bytes]
"""(kind, call, payload); a plain tuple because a link makes 50,000 a second."""

B = TypeVar("B", bytes, memoryview)

OWN_PAGES = 2**16
"""From this size a payload is gathered in memory that is not cleared first."""


class FrameReader:
    """Feed it what a stream gave. PeerFault for a payload above `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = b""
        self._target: memoryview | None = None
        self._filled = 0
        self._kind = self._call = 0

    @property
    def pending(self) -> int:
        """Bytes of the payload that has begun and not ended; 0 between frames."""
        return 0 if self._target is None else self._target.nbytes

    @property
    def is_between(self) -> bool:
        """Whether the bytes so far end with a frame."""
        return self._target is None and not self._head

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        if self._target is not None:
            data = self._fill(data, frames)
        if self._head:
            data, self._head = self._head + data, b""
        at, size = 0, len(data)
        while size - at >= HEADER.size:
            length, kind, call = HEADER.unpack_from(data, at)
            at += HEADER.size
            if length > size - at:
                self._begin(length, kind, call)
                self._fill(memoryview(data)[at:], frames)
                return frames
            self._check(length)
            frames.append((kind, call, data[at : at + length]))
            at += length
        self._head = data[at:]
        return frames

    def _begin(self, length: int, kind: int, call: int) -> None:
        self._check(length)
        self._kind, self._call, self._filled = kind, call, 0
        self._target = memoryview(bytearray(length) if length < OWN_PAGES else np.empty(length, np.uint8).data)

    def _fill(self, data: B, frames: list[Frame]) -> B:
        """Continue the payload that has begun; what is left of `data`."""
        target = self._target
        assert target is not None
        count = min(len(data), target.nbytes - self._filled)
        target[self._filled : self._filled + count] = data[:count] if count < len(data) else data
        self._filled += count
        if self._filled == target.nbytes:
            frames.append((self._kind, self._call, target))
            self._target = None
        return data[count:]

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise PeerFault(f"expected a frame of at most {self._limit} bytes, found one of {length}")
