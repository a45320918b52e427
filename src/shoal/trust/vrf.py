"""A verifiable random function: one value for (key, input), unknown before the key's owner makes it, checkable by all.

ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381, names as there; the group operations are libsodium's. Whoever draws verifiers
with it cannot choose among draws: the value follows from its key and the receipt, and its proof shows that.

Rules that stay true in this file:
- `verify(public, proof, alpha)` gives the value `prove(key, alpha)` gave, or None; it never raises on foreign bytes;
- it refuses what the RFC lets a verifier refuse: keys of small order or outside the prime-order group, encodings that
  are not canonical. It also refuses a Gamma outside that group, which no honest prover makes.

The key is the node's own signing key, so that nobody can draw again under a fresh one. Ed25519 signatures and these
proofs derive nonces from the same secret by SHA-512: they meet only where a signed message equals a point's 32 bytes,
and every message Shoal signs is longer, or begins with a purpose that no hash to the curve will hit.

What this does not protect against: an owner who makes many identities and uses the one whose draw it likes. Whoever
relies on a draw must know the drawer from before (a swarm's member, a requester that has a reputation to lose).
"""

from __future__ import annotations

import hashlib

from nacl import bindings as sodium
from nacl.exceptions import CryptoError

from shoal.crypto.keys import PrivateKey

PROOF_BYTES = 80
VALUE_BYTES = 64

_SUITE = b"\x03"
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_CHALLENGE_BYTES = 16


def prove(key: PrivateKey, alpha: bytes) -> bytes:
    """80 bytes: the proof pi for `alpha` (section 5.1)."""
    expanded = hashlib.sha512(key.seed).digest()
    x = _clamped(expanded[:32])
    point_h = _encode_to_curve(key.public, alpha)
    gamma = sodium.crypto_scalarmult_ed25519_noclamp(x, point_h)
    k = _reduced(hashlib.sha512(expanded[32:] + point_h).digest())
    u, v = sodium.crypto_scalarmult_ed25519_base_noclamp(k), sodium.crypto_scalarmult_ed25519_noclamp(k, point_h)
    c = _challenge(key.public, point_h, gamma, u, v)
    s = sodium.crypto_core_ed25519_scalar_add(k, sodium.crypto_core_ed25519_scalar_mul(_scalar(c), _reduced(x)))
    return gamma + c + s


def value(proof: bytes) -> bytes:
    """64 bytes: the random value beta of a proof that was verified or made here (section 5.2)."""
    return hashlib.sha512(_SUITE + b"\x03" + _times_cofactor(proof[:32]) + b"\x00").digest()


def verify(public: bytes, proof: bytes, alpha: bytes) -> bytes | None:
    """The value, where `proof` is the one that the owner of `public` makes for `alpha`; else None (section 5.3)."""
    if len(public) != 32 or len(proof) != PROOF_BYTES:
        return None
    gamma, c, s = proof[:32], proof[32:48], proof[48:]
    is_sound = _is_point(public) and _is_point(gamma) and int.from_bytes(s, "little") < _ORDER
    if not is_sound:
        return None
    try:
        point_h = _encode_to_curve(public, alpha)
        u = _minus(sodium.crypto_scalarmult_ed25519_base_noclamp(s), _scalar(c), public)
        v = _minus(sodium.crypto_scalarmult_ed25519_noclamp(s, point_h), _scalar(c), gamma)
    except CryptoError:  # a product that is the neutral element: no proof of an honest prover has one
        return None
    return value(proof) if _challenge(public, point_h, gamma, u, v) == c else None


def _encode_to_curve(public: bytes, alpha: bytes) -> bytes:
    """Try and increment (section 5.4.1.1): the first counter whose hash is a point, times the cofactor."""
    for counter in range(256):
        found = hashlib.sha512(_SUITE + b"\x01" + public + alpha + bytes([counter, 0])).digest()[:32]
        if int.from_bytes(found, "little") % 2**255 >= _P:
            continue
        try:
            return _times_cofactor(found)
        except CryptoError:
            continue
    raise AssertionError("256 hashes, none of them a point: chance 2^-256")


def _times_cofactor(point: bytes) -> bytes:
    """8 * point: also for points outside the prime-order group, which libsodium does not multiply."""
    for _ in range(3):
        point = sodium.crypto_core_ed25519_add(point, point)
    return point


def _challenge(*points: bytes) -> bytes:
    """Section 5.4.3, over Y, H, Gamma, U, V."""
    return hashlib.sha512(_SUITE + b"\x02" + b"".join(points) + b"\x00").digest()[:_CHALLENGE_BYTES]


def _minus(point: bytes, scalar: bytes, other: bytes) -> bytes:
    """point - scalar * other."""
    return sodium.crypto_core_ed25519_sub(point, sodium.crypto_scalarmult_ed25519_noclamp(scalar, other))


def _is_point(encoded: bytes) -> bool:
    """On the curve, canonical, of the prime-order group and not its neutral element."""
    return bool(sodium.crypto_core_ed25519_is_valid_point(encoded))


def _clamped(half: bytes) -> bytes:
    x = bytearray(half)
    x[0] &= 248
    x[31] = x[31] & 127 | 64
    return bytes(x)


def _reduced(number: bytes) -> bytes:
    return sodium.crypto_core_ed25519_scalar_reduce(number.ljust(64, b"\x00"))


def _scalar(c: bytes) -> bytes:
    return c.ljust(32, b"\x00")
