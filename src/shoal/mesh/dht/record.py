"""What is stored: a small signed statement of one author, replaced only by a newer one of the same author and key.

kind       topic (32 bytes)              key                        says
"peer"     the author's id               hash(kind, topic)          where its author may be reached
"provider" hash of a model or blob name  hash(kind, topic)          its author serves that; many authors, one key
"value"    hash of a name                hash(kind, author, topic)  whatever its author wants known

The key follows from the rest, so a record cannot be put where it does not belong.

What this does not protect against: an author that signs two records of one sequence number (readers may see either), or
one that says what is not so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from shoal.core.encoding import encode
from shoal.core.errors import InvalidRequest, PeerFault
from shoal.crypto.hashes import blake3_digest
from shoal.crypto.keys import SIGNATURE_BYTES, PrivateKey, is_signature
from shoal.mesh import parse
from shoal.mesh.peer_id import PeerId

Kind = Literal["peer", "provider", "value"]
KINDS: tuple[Kind, ...] = ("peer", "provider", "value")

MAX_VALUE = 1024
"""Bytes of a value. Larger things are content: store their hash."""

MAX_LIFETIME_S = 48 * 3600
CLOCK_SKEW_S = 300
TOPIC_BYTES = 32
_PURPOSE = "shoal dht record v1"


@dataclass(frozen=True, slots=True)
class Record:
    """`sequence` orders an author's records of one key; `expires` is wall seconds."""

    kind: Kind
    author: PeerId
    topic: bytes
    value: bytes
    sequence: int
    expires: int
    signature: bytes

    @property
    def key(self) -> bytes:
        return record_key(self.kind, self.topic, self.author)

    @property
    def size_bytes(self) -> int:
        return len(self.value) + 256  # the rest and what it costs to hold

    def row(self) -> list[Any]:
        """As it is encoded; `parse_record` reads it."""
        return [self.kind, self.author.key, self.topic, self.value, self.sequence, self.expires, self.signature]

    def is_current(self, wall: float) -> bool:
        """Neither expired nor made to live longer than anything may."""
        return wall < self.expires <= wall + MAX_LIFETIME_S + CLOCK_SKEW_S


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before it is signed."""

    kind: Kind
    topic: bytes
    value: bytes


def topic_of(name: str) -> bytes:
    """The topic of a name such as "model SmolLM2-135M" or "blob <hash>": 32 bytes that do not show it."""
    return blake3_digest("shoal dht topic v1", name.encode())


def record_key(kind: Kind, topic: bytes, author: PeerId | None = None) -> bytes:
    """32 bytes. `author` matters for "value" only; ValueError when it is missing there."""
    if kind == "value" and author is None:
        raise ValueError("the key of a value needs its author")
    owner = author.key if kind == "value" and author is not None else b""
    return blake3_digest("shoal dht key v1", encode([kind, owner, topic]))


def signed(draft: Draft, identity: PrivateKey, sequence: int, expires: int) -> Record:
    """InvalidRequest when the value is too long."""
    if len(draft.value) > MAX_VALUE:
        raise InvalidRequest(f"a record holds at most {MAX_VALUE} bytes, found {len(draft.value)}", "value")
    signature = identity.sign(_PURPOSE, _body(draft.kind, draft.topic, draft.value, sequence, expires))
    author = PeerId(identity.public)
    return Record(draft.kind, author, draft.topic, draft.value, sequence, expires, signature)


def parse_record(value: Any) -> Record:
    """PeerFault unless well-formed. The signature is `require_signature`'s."""
    kind, author, topic, content, sequence, expires, signature = parse.row(value, 7)
    if kind not in KINDS:
        raise PeerFault(f"expected a record of {', '.join(KINDS)}, found another kind")
    record = Record(
        kind, parse.peer_id(author), parse.octets(topic, TOPIC_BYTES, TOPIC_BYTES), parse.octets(content, MAX_VALUE),
        parse.integer(sequence), parse.integer(expires), parse.octets(signature, SIGNATURE_BYTES, SIGNATURE_BYTES),
    )  # fmt: skip
    if kind == "peer" and record.topic != record.author.key:
        raise PeerFault("expected a peer's own record, found one about somebody else")
    return record


def require_signature(record: Record) -> None:
    """PeerFault for a record its author did not sign."""
    body = _body(record.kind, record.topic, record.value, record.sequence, record.expires)
    if not is_signature(record.author.key, _PURPOSE, body, record.signature):
        raise PeerFault(f"a record of {record.author.short} is not signed by it")


def _body(kind: Kind, topic: bytes, value: bytes, sequence: int, expires: int) -> bytes:
    return encode([kind, topic, value, sequence, expires])
