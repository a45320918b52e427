"""Ed25519 (RFC 8032): a private key signs, 32 public bytes verify.

Every signature is made for a purpose, hashed in front of the message, so that what was signed as one kind of thing
cannot be presented as another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES = 32
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A signing key; `seed` is the secret, `public` its name. Printing one never shows the seed."""

    seed: bytes = field(repr=False)
    _key: Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"expected a seed of {SEED_BYTES} bytes, found {len(self.seed)}")
        object.__setattr__(self, "_key", Ed25519PrivateKey.from_private_bytes(self.seed))

    @classmethod
    def generate(cls) -> PrivateKey:
        """A fresh key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, purpose: str, message: bytes) -> bytes:
        """64 bytes: the signature of `message` for `purpose`."""
        return self._key.sign(_tagged(purpose, message))


def is_signature(public: bytes, purpose: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` was made by the owner of `public` for this purpose and message. False for malformed bytes."""
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _tagged(purpose, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def _tagged(purpose: str, message: bytes) -> bytes:
    tag = purpose.encode()
    return len(tag).to_bytes(1, "big") + tag + message
