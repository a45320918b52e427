"""A small AMD and a small NVIDIA: roots, certificates, reports and tokens of our own, for what no recording shows."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shoal.trust.attest.claims import Evidence

NOW = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())
BEGINS, ENDS = datetime(2026, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
CHIP = bytes(range(64))
TCB = (3, 0, 20, 209)
"""Boot loader, TEE, SNP, microcode."""


@dataclass(frozen=True)
class Amd:
    """A root, what it signed, and a chip."""

    pem: bytes
    root: str
    chip: ec.EllipticCurvePrivateKey

    def report(self, report_data: bytes, launch: bytes = b"\x11" * 48, policy: int = 0x30000, vmpl: int = 0) -> bytes:
        """A report of version 2, signed by the chip's key."""
        body = bytearray(1184)
        body[0:4] = (2).to_bytes(4, "little")
        body[8:16] = policy.to_bytes(8, "little")
        body[0x30:0x34] = vmpl.to_bytes(4, "little")
        body[0x34:0x38] = (1).to_bytes(4, "little")
        body[0x50:0x90] = report_data
        body[0x90:0xC0] = launch
        body[0x180:0x188] = bytes((TCB[0], TCB[1], 0, 0, 0, 0, TCB[2], TCB[3]))
        body[0x1A0:0x1E0] = CHIP
        r, s = decode_dss_signature(self.chip.sign(bytes(body[:0x2A0]), ec.ECDSA(hashes.SHA384())))
        body[0x2A0 : 0x2A0 + 48] = r.to_bytes(48, "little")
        body[0x2E8 : 0x2E8 + 48] = s.to_bytes(48, "little")
        return bytes(body)

    def evidence(self, report_data: bytes, **fields: Any) -> Evidence:
        return Evidence(self.report(report_data, **fields), self.pem)


def make_amd() -> Amd:
    ark, ask = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    chip = ec.generate_private_key(ec.SECP384R1())
    root = _certificate("ARK", ark.public_key(), "ARK", ark)
    middle = _certificate("ASK", ask.public_key(), "ARK", ark)
    leaf = _certificate("VCEK", chip.public_key(), "ASK", ask, _chip_extensions())
    pem = b"".join(item.public_bytes(Encoding.PEM) for item in (leaf, middle, root))
    return Amd(pem, hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest(), chip)


def _certificate(
    name: str, key: Any, by: str, signer: rsa.RSAPrivateKey, extensions: tuple[x509.UnrecognizedExtension, ...] = ()
) -> x509.Certificate:
    builder = x509.CertificateBuilder(_name(by), _name(name), key, 7, BEGINS, ENDS)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
    return builder.sign(signer, hashes.SHA384(), rsa_padding=pss)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _chip_extensions() -> tuple[x509.UnrecognizedExtension, ...]:
    """What AMD writes into a VCEK: TCB components as DER integers, the chip's id."""
    kinds = ("3.1", "3.2", "3.3", "3.8")
    numbers = [b"\x02\x01" + bytes([n]) if n < 128 else b"\x02\x02\x00" + bytes([n]) for n in TCB]
    found = [(f"1.3.6.1.4.1.3704.1.{kind}", value) for kind, value in zip(kinds, numbers, strict=True)]
    found.append(("1.3.6.1.4.1.3704.1.4", CHIP))
    return tuple(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value) for oid, value in found)


@dataclass(frozen=True)
class Nvidia:
    """A service with one key."""

    key: ec.EllipticCurvePrivateKey
    jwk: dict[str, str]

    @property
    def collateral(self) -> bytes:
        return json.dumps({"keys": [self.jwk]}).encode()

    def token(self, claims: dict[str, Any], alg: str = "ES384") -> str:
        head, body = (_base64(json.dumps(part).encode()) for part in ({"kid": self.jwk["kid"], "alg": alg}, claims))
        r, s = decode_dss_signature(self.key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA384())))
        return f"{head}.{body}.{_base64(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"

    def answer(self, nonce: bytes, gpu: dict[str, Any] | None = None, overall: dict[str, Any] | None = None) -> bytes:
        """The service's answer for one GPU; `gpu` and `overall` change claims."""
        common = {
            "iss": "https://nras.attestation.nvidia.com",
            "nbf": NOW - 10,
            "exp": NOW + 3600,
            "eat_nonce": nonce.hex(),
        }
        own = {"hwmodel": "GH100", "dbgstat": "disabled", "measres": "success", "secboot": True}
        single = self.token(common | own | (gpu or {}))
        named = {"GPU-0": ["DIGEST", ["SHA-256", hashlib.sha256(single.encode()).hexdigest()]]}
        whole = common | {"x-nvidia-overall-att-result": True, "submods": named} | (overall or {})
        return json.dumps([["JWT", self.token(whole)], {"GPU-0": single}]).encode()


def make_nvidia() -> Nvidia:
    key = ec.generate_private_key(ec.SECP384R1())
    numbers = key.public_key().public_numbers()
    x, y = (_base64(value.to_bytes(48, "big")) for value in (numbers.x, numbers.y))
    return Nvidia(key, {"kty": "EC", "crv": "P-384", "kid": "nv-test", "x": x, "y": y})


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
