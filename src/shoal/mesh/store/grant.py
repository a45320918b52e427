"""Who may write where: each author under its own prefix, and where the namespace's owner signed a grant.

A grant is presented once in its holder's own log and counts for what that log says afterwards, within its times. So
whether an entry is allowed follows from the log alone, and every peer judges alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import PUBLIC_BYTES, SIGNATURE_BYTES, PrivateKey, is_signature
from shoal.mesh import parse
from shoal.mesh.peer_id import PeerId

PURPOSE = "shoal store grant v1"
MAX_KEY = 256
MAX_NAME = 64
HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Namespace:
    """A store's name; `owner` (a public key) may grant prefixes in it, without one nobody may."""

    name: str
    owner: bytes | None = None

    @property
    def id(self) -> bytes:
        return blake3_digest("shoal store namespace v1", encode([self.name, self.owner]))


@dataclass(frozen=True, slots=True)
class Grant:
    """`holder` may write keys that begin with `prefix` in entries stamped between `begins` and `ends` (stamps)."""

    namespace: bytes
    holder: bytes
    prefix: str
    begins: int
    ends: int
    signature: bytes = b""

    def body(self) -> bytes:
        return encode([self.namespace, self.holder, self.prefix, self.begins, self.ends])

    def signed(self, owner: PrivateKey) -> Grant:
        signature = owner.sign(PURPOSE, self.body())
        return Grant(self.namespace, self.holder, self.prefix, self.begins, self.ends, signature)

    def row(self) -> list[Any]:
        """As it stands in an entry of its holder, whose namespace and author are known there."""
        return [self.prefix, self.begins, self.ends, self.signature]

    def covers(self, key: str, stamp: int) -> bool:
        return key.startswith(self.prefix) and self.begins <= stamp <= self.ends


def own_prefix(author: bytes) -> str:
    """Where an author needs no grant."""
    return f"{PeerId(author)}/"


def is_allowed(author: bytes, key: str, stamp: int, grants: list[Grant]) -> bool:
    return key.startswith(own_prefix(author)) or any(grant.covers(key, stamp) for grant in grants)


def parse_grant(value: Any, namespace: bytes, holder: bytes) -> Grant:
    """A grant whose signature is yet to be checked (`require_granted`)."""
    prefix, begins, ends, signature = parse.row(value, 4)
    return Grant(
        namespace,
        parse.octets(holder, PUBLIC_BYTES, PUBLIC_BYTES),
        parse.text(prefix, MAX_KEY),
        parse.integer(begins),
        parse.integer(ends),
        parse.octets(signature, SIGNATURE_BYTES, SIGNATURE_BYTES),
    )


def require_granted(grant: Grant, owner: bytes | None) -> None:
    """PeerFault unless the namespace's owner signed it."""
    if owner is None or not is_signature(owner, PURPOSE, grant.body(), grant.signature):
        raise PeerFault(f"expected a grant for {grant.prefix!r} signed by the namespace's owner")
