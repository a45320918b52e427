"""The identity key as a self-signed TLS certificate, and the key behind the other side's.

Names, dates and issuers in a certificate mean nothing here: TLS 1.3 proves that the server holds the certificate's key
(CertificateVerify, RFC 8446 section 4.4.3), and the caller compares that key with the peer it wants. The key also signs
records of Shoal; the two cannot be confused, since TLS signs 64 spaces first and Shoal the length of a purpose.
"""

from __future__ import annotations

import datetime
import os
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from shoal.core.errors import PeerFault
from shoal.crypto.keys import PrivateKey
from shoal.mesh.peer_id import PeerId

MAX_CERTIFICATE = 4096
"""Bytes; ours are about 210."""
_BEGIN, _END = datetime.datetime(2020, 1, 1), datetime.datetime(2120, 1, 1)


def server_context(key: PrivateKey) -> ssl.SSLContext:
    """TLS 1.3 only; proves `key`. No resumption: every connection proves it anew."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    _load(context, key)
    return context


def client_context() -> ssl.SSLContext:
    """TLS 1.3 only; accepts any certificate, because `peer_of` decides."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def peer_of(certificate: bytes | None) -> PeerId:
    """The peer whose key a certificate (DER) holds. PeerFault for anything but a small Ed25519 one."""
    if not certificate or len(certificate) > MAX_CERTIFICATE:
        raise PeerFault("expected a certificate of at most 4096 bytes, found none or a larger one")
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except Exception as error:
        raise PeerFault(f"the certificate cannot be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise PeerFault(f"expected a certificate with an Ed25519 key, found {type(key).__name__}")
    return PeerId(key.public_bytes_raw())


def _load(context: ssl.SSLContext, key: PrivateKey) -> None:
    """`ssl` takes keys from files only: the file is private, encrypted with a word nobody keeps, and gone at once."""
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    word = os.urandom(16).hex().encode()
    encrypted = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(word),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity.pem"
        path.touch(0o600)
        path.write_bytes(_certificate(private) + encrypted)
        context.load_cert_chain(path, password=word)


def _certificate(key: Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shoal")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, _BEGIN, _END)
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)
