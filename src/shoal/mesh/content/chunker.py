"""Content-defined chunking by the gear hash of FastCDC (Xia and others, USENIX ATC 2016), vectorised.

A cut may be where the hash of the last 32 bytes has its `MASK_BITS` highest bits zero; so inserting or changing bytes
moves only the cuts nearby. The gear hash h[i] = sum over k < 32 of G[b[i-k]] << k is made by doubling: the hash of 2w
bytes is h[i] + (h[i-w] << w), five steps for 32 bytes, all in numpy on blocks that stay in the cache.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

MIN_BYTES = 128 * 1024
MAX_BYTES = 1024 * 1024
MASK_BITS = 18
"""A cut every 256 KiB on average after the least size."""

WINDOW = 32
BLOCK = 64 * 1024


def _gear() -> np.ndarray:
    generator = random.Random("shoal chunker v1")  # noqa: S311  a constant table, the same on every machine
    return np.array([generator.getrandbits(32) for _ in range(256)], dtype=np.uint32)


GEAR = _gear()


def chunk_sizes(data: memoryview) -> Iterator[int]:
    """Sizes of the pieces of `data`, in order; they add up to its length."""
    start, total = 0, len(data)
    for cut in _candidates(data):
        while cut - start > MAX_BYTES:
            yield MAX_BYTES
            start += MAX_BYTES
        if cut - start >= MIN_BYTES:
            yield cut - start
            start = cut
    while total - start > MAX_BYTES:
        yield MAX_BYTES
        start += MAX_BYTES
    if total > start:
        yield total - start


def _candidates(data: memoryview) -> Iterator[int]:
    """Ends of all windows whose hash says cut."""
    view = np.frombuffer(data, dtype=np.uint8)
    limit = np.uint32(1 << (32 - MASK_BITS))
    for begin in range(0, len(view), BLOCK):
        first = max(0, begin - WINDOW + 1)
        hashes = GEAR[view[first : begin + BLOCK]]
        width = 1
        while width < WINDOW:
            hashes[width:] += hashes[:-width] << np.uint32(width)
            width *= 2
        for place in np.flatnonzero(hashes[begin - first :] < limit):
            end = begin + int(place) + 1
            if end >= WINDOW:
                yield end
