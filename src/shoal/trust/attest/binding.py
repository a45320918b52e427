"""`report_data` = H(model identity, node key, nonce), with a nonce the verifier chose just now and accepts once.

The quote itself is no identity: bits of it can be flipped without any signature noticing (tests/trust/attest measure
which), so whoever remembered hashes of quotes would take an old one for a new one.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable

from shoal.core.encoding import encode

PURPOSE = "shoal attestation v1"
NONCE_BYTES = 32
NONCE_LIFE_S = 300.0
MAX_NONCES = 4096


def report_data(model: bytes, node: bytes, nonce: bytes) -> bytes:
    """64 bytes to put into a quote.

    model  SHA-256 of the weights file (32 bytes); node: the node's public key (32); nonce: the verifier's (32).
    """
    for name, value in (("model", model), ("node", node), ("nonce", nonce)):
        if len(value) != 32:
            raise ValueError(f"{name}: expected 32 bytes, found {len(value)}")
    return hashlib.sha512(encode([PURPOSE, model, node, nonce])).digest()


class Nonces:
    """Nonces given out by this verifier. Each is good once, for `NONCE_LIFE_S`; the oldest makes way when it is full.

    `now` is monotonic time in seconds.
    """

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom, limit: int = MAX_NONCES) -> None:
        self._random_bytes = random_bytes
        self._limit = limit
        self._issued: OrderedDict[bytes, float] = OrderedDict()

    def issue(self, now: float) -> bytes:
        """A fresh nonce."""
        while len(self._issued) >= self._limit:
            self._issued.popitem(last=False)
        nonce = self._random_bytes(NONCE_BYTES)
        self._issued[nonce] = now
        return nonce

    def spend(self, nonce: bytes, now: float) -> bool:
        """Whether the nonce was given out here, is young enough and was not used before. True at most once for each."""
        issued = self._issued.pop(nonce, None)
        return issued is not None and 0 <= now - issued <= NONCE_LIFE_S
