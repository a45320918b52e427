"""Recorded tokens of NVIDIA's Remote Attestation Service (JWT, ES384) to claims.

The service looked at the GPU's report; the token is its word for it. What is checked is that the word is the service's
(a key whose RFC 7638 thumbprint the policy pins: the service changes keys every few days, so none is pinned by
default), of this time, on this nonce, and that each GPU's own token is the one the overall token names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from shoal.trust.attest.claims import Claims, Evidence, Rejected, Undecided

ISSUER = "https://nras.attestation.nvidia.com"
SCALAR_BYTES = 48
MAX_KEYS = 256
MAX_GPUS = 64


def claims_of(evidence: Evidence, now: int, pins: tuple[str, ...]) -> Claims:
    """The claims, or Rejected (forged, failed, nonces differ) or Undecided (no pinned key, not of this time, or the
    overall token alone). `pins`: thumbprints of accepted keys, hex SHA-256.
    """
    keys = _keys(evidence.collateral, pins)
    overall, gpus = _tokens(evidence.quote)
    whole = _signed(overall, keys, now)
    if whole.get("x-nvidia-overall-att-result") is not True:
        raise Rejected("the service's overall result is not true")
    if not gpus:
        raise Undecided("the GPUs' own tokens are missing: neither their model nor their debug state is known")
    return _claims(whole, _members(whole, gpus, keys, now))


def collateral_key(quote: bytes) -> str:
    """The key set that holds the key which signed this."""
    overall, _ = _tokens(quote)
    return f"NVIDIA-{_part(overall, 0).get('kid', '')}"


def thumbprint(key: Mapping[str, Any]) -> str:
    """RFC 7638, SHA-256, hex, of an elliptic-curve key."""
    members = {name: key[name] for name in ("crv", "kty", "x", "y")}
    return hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _keys(collateral: bytes | None, pins: tuple[str, ...]) -> dict[str, ec.EllipticCurvePublicKey]:
    """By key id, of those that are pinned."""
    if collateral is None:
        raise Undecided("the service's key set was not given or cached")
    try:
        listed = json.loads(collateral)["keys"][:MAX_KEYS]
        pinned = {str(key["kid"]): _public(key) for key in listed if thumbprint(key) in pins}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Undecided(f"the key set is not a JSON web key set: {error!r}") from error
    if not pinned:
        raise Undecided("no key of the key set is pinned by the policy")
    return pinned


def _public(key: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    if key["crv"] != "P-384":
        raise ValueError(f"expected a key on P-384, found {key['crv']!r:.20}")
    x, y = (int.from_bytes(_base64(key[name]), "big") for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()


def _tokens(quote: bytes) -> tuple[str, dict[str, str]]:
    """The overall token and each GPU's, of the service's answer `[["JWT", token], {"GPU-0": token}]` or of a token."""
    try:
        text = quote.decode("ascii").strip()
        if not text.startswith("["):
            return text, {}
        (kind, overall), gpus = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise Rejected(f"not an answer of the attestation service: {error}") from error
    if kind != "JWT" or type(overall) is not str or type(gpus) is not dict or len(gpus) > MAX_GPUS:
        raise Rejected("not an answer of the attestation service")
    if not overall.isascii() or not all(type(token) is str and token.isascii() for token in gpus.values()):
        raise Rejected("not an answer of the attestation service: a token is no ASCII text")
    return overall, gpus


def _signed(token: str, keys: Mapping[str, ec.EllipticCurvePublicKey], now: int) -> dict[str, Any]:
    """What a token says, once its signature, issuer and times hold."""
    header = _part(token, 0)
    if header.get("alg") != "ES384":
        raise Rejected(f"expected a token signed with ES384, found {header.get('alg')!r:.20}")
    key = keys.get(str(header.get("kid")))
    if key is None:
        raise Undecided(f"the key {header.get('kid')!r:.100} that signed the token is not in the pinned key set")
    signed, _, signature = token.rpartition(".")
    _check(key, signed.encode(), _decoded(signature))
    said = _part(token, 1)
    if said.get("iss") != ISSUER:
        raise Rejected(f"expected a token of {ISSUER}, found {said.get('iss')!r:.100}")
    begins, ends = said.get("nbf"), said.get("exp")
    if type(begins) is not int or type(ends) is not int:
        raise Rejected("the token does not say when it is valid")
    if not begins <= now < ends:
        raise Undecided(f"the token is valid from {begins} to {ends}, not at {now} (seconds since 1970)")
    return said


def _check(key: ec.EllipticCurvePublicKey, signed: bytes, signature: bytes) -> None:
    if len(signature) != 2 * SCALAR_BYTES:
        raise Rejected(f"expected a signature of {2 * SCALAR_BYTES} bytes, found {len(signature)}")
    r, s = (int.from_bytes(part, "big") for part in (signature[:SCALAR_BYTES], signature[SCALAR_BYTES:]))
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise Rejected("the token's signature does not verify") from error


def _members(
    whole: Mapping[str, Any], gpus: Mapping[str, str], keys: Mapping[str, ec.EllipticCurvePublicKey], now: int
) -> list[dict[str, Any]]:
    """Each GPU's claims. Rejected unless exactly these tokens are named, on the same nonce, and all measured well."""
    named = whole.get("submods")
    digests = {
        name: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]] for name, token in gpus.items()
    }
    if named != digests:
        raise Rejected("the GPUs' tokens are not those which the overall token names")
    found = [_signed(token, keys, now) for token in gpus.values()]
    for said in found:
        if said.get("eat_nonce") != whole.get("eat_nonce"):
            raise Rejected("a GPU's token answers another nonce than the overall token")
        if said.get("measres") != "success" or said.get("secboot") is not True:
            raise Rejected("a GPU's measurements or secure boot did not hold")
    return found


def _claims(whole: Mapping[str, Any], gpus: list[dict[str, Any]]) -> Claims:
    models = {str(said.get("hwmodel")) for said in gpus}
    if len(models) != 1:
        raise Rejected(f"GPUs of several models in one answer: {', '.join(sorted(models))}")
    try:
        nonce = bytes.fromhex(whole["eat_nonce"])
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("the token holds no nonce") from error
    return Claims(
        platform="nvidia",
        measurements={
            "hwmodel": models.pop().encode(),
            "driver": str(gpus[0].get("x-nvidia-gpu-driver-version")).encode(),
            "vbios": str(gpus[0].get("x-nvidia-gpu-vbios-version")).encode(),
        },
        report_data=nonce,
        is_debug=any(said.get("dbgstat") != "disabled" for said in gpus),
        expires=min(said["exp"] for said in (whole, *gpus)),
        notes=(f"{len(gpus)} GPU(s), in the word of NVIDIA's service",),
    )


def _part(token: str, index: int) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise Rejected("expected a token of three parts")
    try:
        value = json.loads(_decoded(parts[index]))
    except (ValueError, RecursionError) as error:
        raise Rejected(f"a part of the token is not JSON: {error}") from error
    if type(value) is not dict:
        raise Rejected("a part of the token is not a JSON object")
    return value


def _decoded(text: str) -> bytes:
    try:
        return _base64(text)
    except ValueError as error:
        raise Rejected(f"a part of the token is not base64url: {error}") from error


def _base64(text: str) -> bytes:
    """Strict: no character outside the alphabet, no bits left over, so that a token has one spelling."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise ValueError("not the shortest spelling")
    return data
