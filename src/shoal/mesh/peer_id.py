"""Who a peer is: its Ed25519 public key, and nothing else."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from shoal.core.errors import InvalidRequest

ID_BYTES = 32
TEXT_LENGTH = 52


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """32 bytes; as text 52 characters of lower-case base32, which survive a URL, a file name and being read aloud."""

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != ID_BYTES:
            raise InvalidRequest(f"a peer id has {ID_BYTES} bytes, found {len(self.key)}", "peer")

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """The id behind its text. InvalidRequest for anything that `str` did not write."""
        padded = text.upper() + "=" * (-len(text) % 8)
        try:
            peer = cls(base64.b32decode(padded))
        except ValueError:
            peer = None
        if peer is None or str(peer) != text:
            raise InvalidRequest(f"expected a peer id ({TEXT_LENGTH} characters a-z2-7), found {text[:80]!r}", "peer")
        return peer

    def __str__(self) -> str:
        return base64.b32encode(self.key).decode().rstrip("=").lower()

    @property
    def short(self) -> str:
        """Ten characters for people; never used to look anything up."""
        return str(self)[:10]
